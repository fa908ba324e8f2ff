"""Where documents come from: files, folders, datasets on disk and on the hub."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from orchestrator.errors import UserError
from orchestrator.training.language.corpus import library_files
from orchestrator.training.language.lines import BadUtf8, json_records, text_blocks
from orchestrator.training.language.records import Draft, Reader

Format = Literal["text", "jsonl", "parquet", "dataset", "hub"]

_FORMATS: dict[str, Format] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".parquet": "parquet",
}
_ROWS = 1000


@dataclass(frozen=True)
class Source:
    """One file, or one dataset."""

    name: str
    format: Format
    listed: bool = True
    """Named by the person, so that it must not be empty; else found in a folder."""
    split: str = "train"
    subset: str | None = None
    bad_utf8: BadUtf8 = "stop"

    def facts(self) -> list[Any]:
        """What changes whenever the content does: names, sizes and times of change, in ns."""
        if self.format == "hub":
            return [self.name, self.subset, self.split, _hub_dataset(self)._fingerprint]
        place = Path(self.name).resolve()
        files = sorted(place.rglob("*")) if self.format == "dataset" else [place]
        found = [(str(file), file.stat()) for file in files]
        sizes = [[name, stat.st_size, stat.st_mtime_ns] for name, stat in found]
        return [self.format, self.split, self.bad_utf8, sizes]

    def drafts(self, reader: Reader) -> Iterator[Draft | None]:
        """The documents in their order; None for each record that holds nothing to learn.

        Reads on as it is asked, so a source may be larger than memory. Raises UserError with
        file and line.
        """
        if self.format == "text":
            return self._text(reader)
        if self.format == "jsonl":
            records = json_records(Path(self.name), self.bad_utf8)
            return (reader.draft(record, where) for record, where in records)
        batches = _parquet(self, reader) if self.format == "parquet" else _dataset(self, reader)
        return self._rows(batches, reader)

    def _text(self, reader: Reader) -> Iterator[Draft]:
        """The whole file is one document, handed on block by block."""
        opens, held = True, None
        for block in text_blocks(Path(self.name), self.bad_utf8):
            if held is not None:
                yield Draft(reader.text(held, opens=opens, closes=False), closes=False)
                opens = False
            held = block
        if held is not None:
            yield Draft(reader.text(held, opens=opens, closes=True))

    def _rows(
        self, batches: Iterable[list[dict[str, Any]]], reader: Reader
    ) -> Iterator[Draft | None]:
        number = 0
        for rows in batches:
            for row in rows:
                number += 1
                yield reader.draft(row, f"{self.name}, row {number}")


def find_sources(
    data: str | Sequence[str] | None,
    *,
    format: Format | None = None,
    split: str = "train",
    subset: str | None = None,
    bad_utf8: BadUtf8 = "stop",
) -> list[Source]:
    """What `data` names: files, folders, globs, a dataset on disk or on the hub, or several.

    A folder is read in the order of its files' relative paths: the JSONL and parquet files where
    it has any, else all its files as text; hidden ones are passed over. None is Python's own
    library. Raises UserError where there is nothing.
    """

    def source(name: str | Path, *, listed: bool, kind: Format | None = format) -> Source:
        found = kind or format_of(Path(name))
        return Source(str(name), found, listed, split, subset, bad_utf8)

    if data is None:
        return [source(file, listed=False, kind="text") for file in library_files()]
    sources: list[Source] = []
    for name in [data] if isinstance(data, str) else data:
        place = Path(name)
        if format == "hub" or (format is None and _is_hub_name(name)):
            sources.append(source(name, listed=True, kind="hub"))
        elif place.is_dir() and (format == "dataset" or _is_dataset(place)):
            sources.append(source(name, listed=True, kind="dataset"))
        elif place.is_dir():
            sources.extend(source(f, listed=False) for f in _folder(place, format))
        elif place.exists():
            sources.append(source(name, listed=True))
        else:
            base = Path(place.anchor or ".")
            matches = sorted(base.glob(str(place.relative_to(place.anchor))))
            sources.extend(source(f, listed=False) for f in matches if f.is_file())
            if not matches:
                raise UserError(
                    f"the data {name} is not there",
                    hint="give a path that every node sees, or `owner/name` of a hub dataset",
                )
    if not sources:
        raise UserError(f"{data} has no file to train on")
    return sources


def format_of(path: Path) -> Format:
    """By the extension, before .gz where that is the last; what is not known is text."""
    suffixes = path.suffixes[-2:] if path.suffix == ".gz" else path.suffixes[-1:]
    return _FORMATS.get(suffixes[0].lower() if suffixes else "", "text")


def _folder(place: Path, format: Format | None) -> list[Path]:
    files = sorted(
        file
        for file in place.rglob("*")
        if file.is_file()
        and not any(part.startswith(".") for part in file.relative_to(place).parts)
    )
    records = [file for file in files if format_of(file) != "text"]
    return records if records and format is None else files


def _is_dataset(place: Path) -> bool:
    """As datasets' `save_to_disk` leaves it."""
    return (place / "state.json").is_file() or (place / "dataset_dict.json").is_file()


def _is_hub_name(name: str) -> bool:
    """`owner/name`, where no such file is there and it does not look like one."""
    fits = re.fullmatch(r"\w[\w.-]*/[\w.-]+", name) is not None
    looks_like_a_file = format_of(Path(name)) != "text" or Path(name).suffix in (".txt", ".md")
    return fits and not looks_like_a_file and not Path(name).exists()


def _parquet(source: Source, reader: Reader) -> Iterator[list[dict[str, Any]]]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise _missing("parquet files", "pyarrow") from error
    try:
        with parquet.ParquetFile(source.name) as file:
            columns = reader.form(file.schema_arrow.names, source.name).values()
            for batch in file.iter_batches(batch_size=_ROWS, columns=list(columns)):
                yield batch.to_pylist()
    except (OSError, pyarrow.ArrowException) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"cannot read the data {source.name}: {reason}") from error


def _dataset(source: Source, reader: Reader) -> Iterator[list[dict[str, Any]]]:
    dataset = _hub_dataset(source) if source.format == "hub" else _saved_dataset(source)
    columns = list(reader.form(dataset.column_names, source.name).values())
    for batch in dataset.select_columns(columns).iter(batch_size=_ROWS):
        rows = zip(*(batch[column] for column in columns), strict=True)
        yield [dict(zip(columns, row, strict=True)) for row in rows]


def _saved_dataset(source: Source) -> Any:
    datasets = _datasets()
    try:
        found = datasets.load_from_disk(source.name)
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read the dataset {source.name}: {error}") from error
    if not isinstance(found, datasets.DatasetDict):
        return found
    if source.split not in found:
        raise UserError(
            f"the dataset {source.name} has no split {source.split}",
            hint=f"its splits are: {', '.join(found)}",
        )
    return found[source.split]


def _hub_dataset(source: Source) -> Any:
    datasets = _datasets()
    try:
        return datasets.load_dataset(source.name, source.subset, split=source.split)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"cannot load the dataset {source.name}, which is no file here, from the hub: {reason}",
            hint="check the path or name; without internet its files must be in HF_HOME, with "
            "HF_HUB_OFFLINE=1",
        ) from error


def _datasets() -> Any:
    try:
        import datasets
    except ImportError as error:
        raise _missing("datasets", "datasets") from error
    return datasets


def _missing(what: str, package: str) -> UserError:
    return UserError(f"reading {what} needs the package {package}", hint="pip install 'ptx[data]'")
