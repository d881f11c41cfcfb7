# As yolox-nano_coco_persons.py, but of side 0.2 x the diagonal of the box, the size of AdvPatch and T-SEA.
#
# To expect: AP_50 of people 0.677 clean, 0.470 with the patch, 0.595 with a grey one, 0.581 with noise.
#
#     sda fit configs/patches/yolox-nano_coco_persons_small.py
#
_base_ = ['yolox-nano_coco_persons.py']

fit = dict(placement=dict(scale=0.2, measure='diagonal'), epochs=60)
