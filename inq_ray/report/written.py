"""Report of a folder, written to a file or an object store."""

from pathlib import Path

from inq_ray.files.extra import install_command
from inq_ray.files.shown import one_line, shown
from inq_ray.files.whole import write_text
from inq_ray.report.chart import can_draw
from inq_ray.report.files import REPORT, Files
from inq_ray.report.run.page import run_page
from inq_ray.report.run.record import CONFIG, METRICS, SUMMARY, read_run
from inq_ray.report.run.rounding import read_stored
from inq_ray.report.sweep.page import sweep_page
from inq_ray.report.sweep.record import STATE, read_sweep
from inq_ray.storage.address import Location, locate
from inq_ray.storage.retry import retry


def write_report(folder: str | Path, out: str | Path | None = None, *, remote: bool = True) -> str:
    """Write the report of a run or sweep; return where it is.

    Args:
        folder: Folder or address of the run or sweep.
        out: File, existing folder or address; None = `report.html` in the folder.
        remote: Whether checkpoints in an object store are read, which may take long.

    Raises:
        ValueError: There is no run or sweep, matplotlib is missing, or the file cannot be written.
    """
    if not can_draw():
        raise ValueError(f"a report needs matplotlib: {install_command('report', 'matplotlib')}")
    source = locate(str(folder), "RUN_OR_SWEEP")
    text = report_of(source, remote=remote)
    target = source.join(REPORT) if out is None else locate(str(out), "OUT")
    if target.is_local and Path(target.path).is_dir():
        target = target.join(REPORT)
    if not target.is_local:
        retry(lambda: _write_there(target, text.encode()), target.name, verb="write")
        return target.name
    try:
        write_text(Path(target.path), text)
    except OSError as error:
        raise ValueError(f"cannot write {shown(target.path)}: {error.strerror or error}") from error
    return target.path


def _write_there(target: Location, data: bytes) -> None:
    with target.fs.open_output_stream(target.path) as stream:
        stream.write(data)


def report_of(folder: Location, *, remote: bool) -> str:
    """Return the page of a run or sweep.

    Raises:
        ValueError: The folder is neither.
    """
    folder.info()  # a missing folder or bucket has a message of its own
    files = Files(folder)
    if folder.join(STATE).exists():
        return sweep_page(read_sweep(files))
    if any(folder.join(name).exists() for name in (CONFIG, METRICS, SUMMARY)):
        record = read_run(files)
        return run_page(record, read_stored(record, remote=remote))
    raise ValueError(
        one_line(f"{folder.name} is neither the folder of a run nor of a sweep: it has no {CONFIG} and no {STATE}")
    )
