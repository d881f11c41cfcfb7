# The same 205 pixels (1 %) of every synthetic scene, which of them and their colours learned with Sparse-PGD's mask on 48 scenes,
# turn what a small segmenter says of the other 16.
#
# To expect: mIoU 81.0 clean, 46.6 attacked, 78.6 with random places.
#
#     sda fit configs/patches/demo_semantic_fpn_pixels.py
#
# As many random pixels of random colours are the column "random places".
_base_ = ['../spgd_semantic_fpn.py']

fit = dict(
    placement=dict(type='Pixels'),
    shape=dict(type='Patch', height=128, width=160),
    pixels=0.01,
    start='random',
    epochs=15,
    lr=0.1)
fit_dataloader = dict(batch_size=4, dataset=dict(indices=list(range(48))))
test_dataloader = dict(batch_size=8, dataset=dict(indices=list(range(48, 64))))
