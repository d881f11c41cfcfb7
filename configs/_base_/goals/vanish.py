goal = dict(type='Vanish', score_thr=0.3, iou_thr=0.5)
