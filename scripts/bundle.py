"""Pack what the tables' GPU run needs for a machine that has PyTorch and no network: python scripts/bundle.py DATA OUT.

DATA is the folder of CIFAR-10's Parquet files. OUT gets the package, the images as JPEG files in one archive, wheels
for Python 3.12 on Linux x86-64, and run.sh: ``bash OUT/run.sh MINUTES [STATE]`` goes on with the grid whose state is
in STATE, ends by itself, and leaves results and Standard models (in half precision, in parts of at most 15 MB) in the
folder that $OUT names. Of the wheels in ``spare`` only those are installed that the machine lacks.
"""

from __future__ import annotations

import csv
import io
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pyarrow.parquet

from msgm.report.page import commit

ROOT = Path(__file__).parents[1]
LIMIT = 60 * 2**20

NEEDED = (
    "diffusers==0.42.1", "importlib_metadata==10.2.0", "zipp==4.1.2", "jsonargparse==4.53.0",
    "docstring_parser==0.18.0", "typeshed_client==2.15.0", "lazy-importer==0.1.0",
)  # fmt: skip
SPARE = {
    "PIL": "pillow==13.0.0",
    "psutil": "psutil==7.2.2",
    "yaml": "PyYAML==6.0.4",
    "accelerate": "accelerate==1.15.0",
    "huggingface_hub": "huggingface_hub==1.33.0",
    "safetensors": "safetensors==0.8.0",
    "regex": "regex==2026.11.19",
    "requests": "requests==2.34.2",
    "tqdm": "tqdm==4.70.1",
    "filelock": "filelock==4.3.1",
    "fsspec": "fsspec==2026.9.0",
    "packaging": "packaging==26.4",
    "typing_extensions": "typing_extensions==4.16.0",
    "httpx": "httpx==0.28.1",
    "httpcore": "httpcore==1.0.9",
    "h11": "h11==0.16.0",
    "anyio": "anyio==4.16.0",
    "certifi": "certifi==2026.10.19.post1",
    "idna": "idna==3.20",
    "urllib3": "urllib3==2.8.0",
    "charset_normalizer": "charset-normalizer==3.5.3",
    "rich": "rich==15.0.0",
    "pygments": "Pygments==2.21.0",
    "markdown_it": "markdown-it-py==4.3.0",
    "mdurl": "mdurl==0.1.2",
}
"""By the name under which each is imported."""

RUN = r"""#!/bin/bash
# bash run.sh MINUTES [STATE [BUDGET]]: go on with the grid in STATE for so long, then leave what there is in $OUT.
set -u
here=$(cd "$(dirname "$0")" && pwd); minutes=$1; state=${2:-/tmp/msgm-state}; budget=${3:-gpu}
site=/tmp/msgm-site; data=/tmp/msgm-data
export OMP_NUM_THREADS=4 TORCHINDUCTOR_COMPILE_THREADS=8 TORCHINDUCTOR_CACHE_DIR=/tmp/msgm-inductor
export HF_HUB_OFFLINE=1 PYTHONUNBUFFERED=1
mkdir -p "$state" "$OUT"
exec > >(tee -a "$OUT/log.txt") 2>&1
nvidia-smi --query-gpu=name,memory.total,driver_version --format=csv,noheader; python3 --version
pip="python3 -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --target $site"
if [ ! -e $site/.done ]; then
    $pip "$here"/wheels/*.whl || exit 1
    while read -r name wheel; do
        python3 -c "import importlib.util as u, sys; sys.exit(u.find_spec('$name') is None)" \
            || { echo "installing $wheel"; $pip "$here/spare/$wheel" || exit 1; }
    done < "$here/spare.txt"
    touch $site/.done
fi
export PYTHONPATH="$here/src:$site"
if [ ! -e $data/cifar10/.done ]; then
    mkdir -p $data && tar -C $data -xJf "$here/cifar10.tar.xz" && touch $data/cifar10/.done || exit 1
fi
if [ -e "$here/models.tar" ] && [ ! -e "$state/judge" ]; then tar -C "$state" -xf "$here/models.tar"; fi
echo "set up in $SECONDS s"
left=$(python3 -c "print(max(0.0, $minutes - $SECONDS / 60))")
python3 -m msgm reproduce cifar10 --budget $budget --data $data/cifar10 --out "$state" --minutes "$left" --threads 4
status=$?
tar -C "$state" --exclude='diffusion_pytorch_model.safetensors' --exclude='resume.safetensors' -czf "$OUT/results.tgz" .
for process in vp ddpm; do
    model=$process/standard/model
    if [ -e "$state/$model/moderation.json" ]; then
        rm -rf /tmp/half && mkdir -p /tmp/half/$process/standard
        python3 -c "import msgm; msgm.save(msgm.load('$state/$model'), '/tmp/half/$model', half=True)"
        cp "$state/$process/standard/"{job,row}.json /tmp/half/$process/standard/
        tar -C /tmp/half -cf - $process | split -b 15000000 -d -a 1 - "$OUT/$process-standard.tar."
    fi
done
ls -l "$OUT"; echo "ended with status $status after $SECONDS s"
exit $status
"""


def wheels(folder: Path, names: tuple[str, ...]) -> None:
    """Download wheels for the other machine."""
    platforms = [f"manylinux_2_{minor}_x86_64" for minor in (28, 27, 17)] + [
        "manylinux2014_x86_64",
        "manylinux1_x86_64",
    ]
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(
        [
            sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check", "--no-deps",
            "--only-binary=:all:", "--python-version", "3.12", "--implementation", "cp",
            *(word for platform in platforms for word in ("--platform", platform)), "-d", str(folder), *names,
        ],
        check=True,
    )  # fmt: skip


def images(data: Path, archive: Path) -> None:
    """The JPEG files of both splits as folders of images, with their labels in metadata.csv, in one archive."""
    with tarfile.open(archive, "w:xz", preset=6) as tar:

        def add(name: str, content: bytes) -> None:
            entry = tarfile.TarInfo(f"cifar10/{name}")
            entry.size, entry.mode = len(content), 0o644
            tar.addfile(entry, io.BytesIO(content))

        for split in ("train", "test"):
            table = pyarrow.parquet.read_table(data / f"{split}.parquet", columns=["image", "label"])
            lines = io.StringIO()
            rows = csv.writer(lines)
            rows.writerow(("file_name", "label"))
            for index, row in enumerate(table.to_pylist()):
                name = f"{index // 1000:02}/{index:05}.jpg"
                add(f"{split}/{name}", row["image"]["bytes"])
                rows.writerow((name, row["label"]))
            add(f"{split}/metadata.csv", lines.getvalue().encode())


def package(out: Path) -> None:
    """The package, its version as an installed one has it, and the commit that it is."""
    shutil.copytree(ROOT / "src", out, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    version = next(
        line.split('"')[1] for line in (ROOT / "pyproject.toml").read_text().splitlines() if "version" in line
    )
    info = out / f"msgm-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: msgm\nVersion: {version}\n")
    (out / "msgm" / "COMMIT").write_text(commit(ROOT) or "")


def main(data: Path, out: Path) -> None:
    shutil.rmtree(out / "src", ignore_errors=True)
    out.mkdir(parents=True, exist_ok=True)
    package(out / "src")
    if not (out / "cifar10.tar.xz").exists():
        images(data, out / "cifar10.tar.xz")
    wheels(out / "wheels", NEEDED)
    wheels(out / "spare", tuple(SPARE.values()))
    files = {name: sorted((out / "spare").glob(f"{_stem(pin)}-*.whl"))[0].name for name, pin in SPARE.items()}
    (out / "spare.txt").write_text("".join(f"{name} {file}\n" for name, file in files.items()))
    (out / "run.sh").write_text(RUN)
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    print(f"{out}: {size / 2**20:.1f} MiB")
    if size > LIMIT:
        raise SystemExit(f"more than {LIMIT / 2**20:.0f} MiB")


def _stem(pin: str) -> str:
    """What a wheel's name begins with, as an expression for glob: case and dashes differ from index to index."""
    name = pin.split("==")[0].replace("-", "_")
    return "".join(f"[{c.lower()}{c.upper()}]" if c.isalpha() else c for c in name)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
