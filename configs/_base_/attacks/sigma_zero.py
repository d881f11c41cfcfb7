# sigma-zero: as few pixels as it takes. The published attack counts channel values (unit='element').
attack = dict(type='SigmaZero', steps=200, unit='pixel')
