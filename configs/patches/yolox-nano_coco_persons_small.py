# As yolox-nano_coco_persons.py, but of side 0.2 x the diagonal of the box, the size of AdvPatch and T-SEA.
#
#     sda fit configs/patches/yolox-nano_coco_persons_small.py
#
_base_ = ['yolox-nano_coco_persons.py']

fit = dict(placement=dict(scale=0.2, measure='diagonal'))
