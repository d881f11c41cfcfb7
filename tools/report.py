"""Put finished runs side by side: a table of what they reached, and a chart of success against the budget.

    python tools/report.py work_dirs/spgd_faster_rcnn work_dirs/sigma_zero_faster_rcnn
    python tools/report.py work_dirs/* --unit groups --out work_dirs/report
"""
import sys

from sparse_dense_attacks.cli.common import main
from sparse_dense_attacks.cli.report import run

if __name__ == '__main__':
    sys.exit(main(run))
