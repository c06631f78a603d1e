"""Children that end with their parent. Only the standard library: the watch must begin before anything heavy loads."""

import os
import threading
import time


def end_with(parent: int) -> None:
    """End this process, without clean-up, soon after the process `parent` is no longer its parent."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
