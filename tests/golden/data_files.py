"""Writes the Parquet file that the tests of crates/data read, as `datasets` would: snappy, nested lists of structs.

    pip install pyarrow==26.0.1
    python data_files.py
"""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

FILE = Path(__file__).parents[2] / "crates/data/src/read/tests/rows.parquet"


def main() -> None:
    message = pa.struct([("role", pa.string()), ("content", pa.string())])
    schema = pa.schema([("messages", pa.list_(message)), ("source", pa.string()), ("score", pa.float64())])
    rows = [
        {
            "messages": [
                {"role": "user", "content": f"question {index}"},
                {"role": "assistant", "content": f"answer {index}, wörds"},
            ],
            "source": None if index == 2 else "made",
            "score": index / 4,
        }
        for index in range(3)
    ]
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), FILE, compression="snappy")
    print(FILE, FILE.stat().st_size)


if __name__ == "__main__":
    main()
