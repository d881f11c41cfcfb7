goal = dict(type='Mislabel', target=None, score_thr=0.3, iou_thr=0.5)
