"""Workers on this machine: a process for each device."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerContext, SpawnContext
from multiprocessing.process import BaseProcess

import torch
from tqdm import tqdm

from ..environment import environment
from ..populations import Options
from .jobs import Event, Order, Outcome
from .worker import Worker

# What takes a worker seconds to import; torch's optimizers import its compiler.
PRELOADED = (f"{__package__}.worker", "torch._dynamo")


class LocalPool:
    """A process for each of some devices, all of them on one store.

    Devices are numbered as the caller sees them: `CUDA_VISIBLE_DEVICES` is left alone.

    Args:
        options: see `Worker`; the device is set for each.
        zoo: see `Worker`.
    """

    def __init__(
        self, devices: Sequence[torch.device], options: Options, zoo: Sequence[str] = ()
    ) -> None:
        names = [f"{device} #{number}" for number, device in enumerate(devices)]
        self._devices = dict(zip(names, devices, strict=True))
        self._options, self._zoo = options, zoo
        self._processes: dict[str, tuple[BaseProcess, Connection]] = {}
        self._busy: set[str] = set()

    def __len__(self) -> int:
        """How many workers there may be."""
        return len(self._devices)

    @property
    def device(self) -> str:
        """What a worker computes on."""
        return environment(next(iter(self._devices.values())))["device"]

    @property
    def share(self) -> float:
        """How many devices a worker takes: less than one where several were given the same."""
        return len({*self._devices.values()}) / len(self)

    @property
    def room(self) -> str:
        """What a worker needs, and what there is, in words."""
        return f"the processes on {', '.join(self._devices)} do nothing"

    def idle(self, wanted: int) -> list[str]:
        """The names of so many workers without a job, at most; they need not have started."""
        return [name for name in self._devices if name not in self._busy][:wanted]

    def send(self, worker: str, order: Order) -> None:
        """Have a worker do a job."""
        if worker not in self._processes:
            context = _context()
            here, there = context.Pipe()
            options = replace(self._options, device=self._devices[worker])
            process = context.Process(target=_serve, args=(there, options, self._zoo), daemon=True)
            process.start()
            there.close()
            self._processes[worker] = process, here
        self._busy.add(worker)
        # If it is dead, `wait` will see.
        with suppress(OSError):
            self._processes[worker][1].send(order)

    def wait(self, seconds: float) -> list[tuple[str, Outcome | Event]]:
        """What workers are done with, or what befell them, after so many seconds at most."""
        ends = {self._processes[name][1]: name for name in self._busy}
        outcomes: list[tuple[str, Outcome | Event]] = []
        for end in wait(list(ends), seconds):
            name = ends[end]  # type: ignore[index]
            try:
                outcomes.append((name, pickle.loads(self._processes[name][1].recv_bytes())))
                self._busy.discard(name)
            except (EOFError, OSError):
                self.stop(name)
                outcomes.append((name, Event.DIED))
            except Exception as error:
                self.stop(name)
                outcomes.append((name, Outcome(error=error)))
        return outcomes

    def stop(self, worker: str) -> None:
        """End a worker, whatever it does; another takes its place."""
        process, end = self._processes.pop(worker)
        process.kill()
        process.join()
        end.close()
        self._busy.discard(worker)

    def close(self) -> None:
        """End all workers."""
        for worker in list(self._processes):
            self.stop(worker)


def _context() -> SpawnContext | ForkServerContext:
    """How workers start: none of them inherits what torch has started in the driver.

    Forks of a process that has only imported what they need start in a moment; other systems than
    Linux start every worker from nothing, since their libraries do not bear a fork.
    """
    if sys.platform != "linux":
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(PRELOADED))
    return context


def _end_with(driver: BaseProcess) -> None:
    driver.join()
    os._exit(1)


def _serve(end: Connection, options: Options, zoo: Sequence[str]) -> None:
    """Do what is asked for until the driver is gone."""
    # Ctrl-C is the driver's; what is to be said travels in outcomes.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    # The usual one is shared by processes, and left behind where one is killed.
    tqdm.set_lock(threading.RLock())
    driver = multiprocessing.parent_process()
    assert driver
    threading.Thread(target=_end_with, args=(driver,), daemon=True).start()
    if options.device.type == "cuda":
        torch.cuda.set_device(options.device)
    worker = Worker(options, zoo)
    while True:
        end.send_bytes(worker.run(end.recv()))
