"""`bistable-rl tensorboard`."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from bistable_rl.commands.parser import Parser, path, port
from bistable_rl.errors import UserError, one_sentence


def tensorboard(argv: Sequence[str]) -> int:
    """Show the curves of runs in a browser."""
    parser = Parser("tensorboard", "Serve TensorBoard for a folder of runs until Ctrl-C.")
    parser.add_argument("folder", metavar="DIR", type=path, help="a run folder, or a folder that contains some")
    parser.add_argument("--port", metavar="N", type=port, default=6006, help="the port (default: 6006)")
    args = parser.parse_args(argv)
    if not args.folder.is_dir():
        raise UserError(f"there is no folder {args.folder}; give a folder with runs, such as runs/t_maze.")
    if not any(args.folder.rglob("*tfevents*")):
        raise UserError(f"{args.folder} holds nothing for TensorBoard yet, since no run in it has begun.")

    from tensorboard.program import TensorBoard, TensorBoardServerException

    server = TensorBoard()
    server.configure(argv=[None, "--logdir", str(args.folder), "--port", str(args.port)])
    try:
        print(f"TensorBoard: {server.launch()} (Ctrl-C ends it)", flush=True)
    except TensorBoardServerException as error:
        raise UserError(f"tensorboard: {one_sentence(error)}") from None
    threading.Event().wait()
    return 0
