# ASLO: as few pixels as it takes, with adaptive weights. The published attack counts channel values (unit='element').
attack = dict(type='ASLO', steps=200, unit='pixel')
