#!/usr/bin/env bash
# A conversation that went through `datasets` gets quotes and escapes for every reader but `datasets`.
#
# One would guess: a JSONL of conversations, loaded by `datasets` and written by `to_parquet`, holds the
# texts that the JSONL held.
#
# What happens: if `content` is a text in one row and a list of parts in another (as in data with images or
# tool results), datasets 5 gives the field its type `Json`. In the Arrow file and in Parquet every value of
# that field, also each plain text, is stored as JSON: `Say hi.` is stored as `"Say hi."`, and a line break as
# the two characters \n. `datasets` itself undoes that when it reads the file again, by a note in the schema's
# metadata. pandas, pyarrow and polars do not know the note, and neither does `with_format("arrow")`.
#
# Who is hurt: who trains on, scores or prunes such a Parquet with anything but `datasets`: the model sees
# quotes around every text and `\n` for line breaks. Nothing fails (polars alone warns, of an extension type).
#
# How to live with it: look in the schema's metadata (key `huggingface`) for `"_type": "Json"` and decode those
# fields with json.loads; or make `content` one type in all rows before loading.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet "datasets==5.2.0" "pyarrow==26.0.1" "pandas==3.0.3" "polars==1.42.1"
cd "$folder"
cat > rows.jsonl <<'ROWS'
{"messages": [{"role": "user", "content": "Say hi."}, {"role": "assistant", "content": "Hi,\nyou."}]}
{"messages": [{"role": "user", "content": [{"type": "text", "text": "Again."}]}, {"role": "assistant", "content": [{"type": "text", "text": "Hi."}]}]}
ROWS
HF_HOME="$folder/cache" HF_DATASETS_OFFLINE=1 "$folder/env/bin/python" - <<'PYTHON'
import datasets
import pandas
import polars
import pyarrow.parquet

datasets.disable_progress_bars()
print("datasets", datasets.__version__, "pandas", pandas.__version__, "polars", polars.__version__)
loaded = datasets.load_dataset("json", data_files="rows.jsonl", split="train")
loaded.to_parquet("rows.parquet")
again = datasets.load_dataset("parquet", data_files="rows.parquet", split="train")
readers = {
    "datasets": again[0],
    "datasets, as Arrow": again.with_format("arrow")[0].to_pylist()[0],
    "pyarrow": pyarrow.parquet.read_table("rows.parquet").to_pylist()[0],
    "pandas": pandas.read_parquet("rows.parquet").iloc[0],
    "polars": polars.read_parquet("rows.parquet").to_dicts()[0],
}
found = {name: row["messages"][1]["content"] for name, row in readers.items()}
for name, text in found.items():
    print(f"{name:20}{text}" if "\n" not in text else f"{name:20}{text!r} (as in the JSONL)")
assert found.pop("datasets") == "Hi,\nyou."
assert set(found.values()) == {'"Hi,\\nyou."'}, "the behaviour has changed"
PYTHON
