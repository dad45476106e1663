"""Ask the model server: python -m src.predict ROWS.json (a list of records; while `gyrostat up` runs)."""

import http.client
import json
import sys


def predict(records, batch=500):
    """Predictions for records, in order; raises RuntimeError with the server's own words."""
    import gyrostat

    project = gyrostat.Project()
    port = project.loaded.declaration.server.port
    found = []
    link = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    for n in range(0, len(records), batch):
        body = json.dumps(
            {"dataframe_records": records[n : n + batch]}, ensure_ascii=False
        ).encode()
        link.request(
            "POST",
            f"/invocations/{project.model(None)}",
            body,
            {"Content-Type": "application/json"},
        )
        answer = link.getresponse()
        content = json.loads(answer.read())
        if answer.status != 200:
            raise RuntimeError(content["error"]["message"])
        found += content["predictions"]
    return found


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        records = json.load(file)
    try:
        print(json.dumps(predict(records), ensure_ascii=False))
    except (OSError, RuntimeError) as error:
        sys.exit(f"no answer from the model server: {error}")


if __name__ == "__main__":
    main()
