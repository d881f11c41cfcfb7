# As demo_faster_rcnn.py, for the small YOLOX.
#
#     sda fit configs/patches/demo_yolox.py
#
_base_ = ['../spgd_yolox.py']

fit = dict(
    placement=dict(type='OnObjects', scale=0.5, measure='area', raised=0.0, smallest=8),
    shape=dict(type='Patch', height=16, width=16),
    epochs=20,
    lr=0.05)
fit_dataloader = dict(batch_size=4, dataset=dict(indices=list(range(48))))
test_dataloader = dict(batch_size=8, dataset=dict(indices=list(range(48, 64))))
