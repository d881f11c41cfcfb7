goal = dict(type='Fabricate', count=1, target=None, score_thr=0.3, iou_thr=0.5)
