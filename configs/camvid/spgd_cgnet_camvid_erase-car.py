# Sparse-PGD makes cars vanish from CGNet's label maps: every car pixel is to become what the model finds likeliest after a car.
#
#     sda attack configs/camvid/spgd_cgnet_camvid_erase-car.py --limit 4
#
# Images without a car are left alone and count in no success rate. Data and weights as in spgd_cgnet_camvid.py.
_base_ = './spgd_cgnet_camvid.py'
goal = dict(_delete_=True, type='TargetedPixels', erase='Car', theta=0.9)
