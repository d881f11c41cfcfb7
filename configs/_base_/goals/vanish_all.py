# Hide everything that average precision reads: down to score 0.01, objects that were hardly found before included. Set score_thr
# to the lowest score that the detector itself reports.
goal = dict(type='Vanish', score_thr=0.01, iou_thr=0.5, undetected=True)
