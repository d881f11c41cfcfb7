goal = dict(type='Untargeted')
