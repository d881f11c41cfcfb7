# The hardest target of each image. Others: a class, 'runner_up', 'random', a dict from file name to class, or a CSV file such as
# goal = dict(type='Targeted', target='images.csv', offset=1) for the NIPS 2017 development set, which counts classes from 1.
goal = dict(type='Targeted', target='least_likely')
