"""Write Grafana's dashboards, which are code here: what is in ``deploy/grafana/dashboards`` is never edited.

python -m tools.dashboards [FOLDER]
"""

import sys
from pathlib import Path

from tools.dashboards.dashboard import write

FOLDER = Path(__file__).parents[2] / "deploy" / "grafana" / "dashboards"

write(Path(sys.argv[1]) if sys.argv[1:] else FOLDER)
