# A patch on every object of the synthetic scenes, of half the side of a square of the object's area, that hides it from the
# small Faster R-CNN; learned on 48 scenes, judged on the other 16.
#
# To expect: bbox_mAP_50 0.973 clean, 0.220 with the patch, 0.625 with a grey one; 71 % of the objects hidden, 35 % by the grey one.
#
#     sda fit configs/patches/demo_faster_rcnn.py
#
_base_ = ['../spgd_faster_rcnn.py']

fit = dict(
    placement=dict(type='OnObjects', scale=0.5, measure='area', raised=0.0, smallest=8),
    shape=dict(type='Patch', height=16, width=16),
    epochs=20,
    lr=0.05)
fit_dataloader = dict(batch_size=4, dataset=dict(indices=list(range(48))))
test_dataloader = dict(batch_size=8, dataset=dict(indices=list(range(48, 64))))
judge = dict(curves=dict(scale=[0.5, 1.0, 1.5], rotation=[0, 30, 90], brightness=[-0.3, 0, 0.3], gap=[0.0, 0.2]))
