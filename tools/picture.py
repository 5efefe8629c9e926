"""Draw what `pagewalk tui` shows of a scenario's fault: `python tools/picture.py FILE.svg`.

Needs textual (the extra `tui`).
"""

import asyncio
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from pagewalk.playback.of_scenario import play_back
from pagewalk.tui.app import Stepper
from pagewalk.tui.going import first_look

SCENARIO, SIZE = "vmemmap-devdax", (136, 38)


async def drawn() -> str:
    """Return the screen as SVG."""
    arguments: dict[str, object] = {"release": None, "build": None, "levels": 4, "settings": {}}
    playback, run = play_back(SCENARIO, arguments, registers=True)
    run.kernel.close()
    app = Stepper(playback, first_look(playback))
    async with app.run_test(size=SIZE) as pilot:
        await pilot.pause()
        return app.export_screenshot(title=f"pagewalk tui {SCENARIO}")


if __name__ == "__main__":
    if len(sys.argv) != 2 or not sys.argv[1].endswith(".svg"):
        sys.exit(f"usage: {sys.argv[0]} FILE.svg")
    Path(sys.argv[1]).write_text(asyncio.run(drawn()))
