"""The local Hub's jobs, as the unmodified official client sees them."""

from __future__ import annotations

import time

import pytest
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, JobNotFoundError

from ml_intern.testing import LocalHub
from ml_intern.testing.hub import User

IMAGE = "python:3.12"


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    users = {"hf_local": User("tester", ("lab",)), "hf_other": "other", "hf_reader": User("tester", role="read")}
    with LocalHub(tmp_path_factory.mktemp("hub"), users) as hub:
        yield hub


@pytest.fixture
def api(hub):
    return HfApi(endpoint=hub.url, token="hf_local")


def run(api, code, *arguments, **options):
    options = {"namespace": "tester", "image": IMAGE, **options}
    return api.run_job(command=["python", "-c", code, *arguments], **options)


def end_of(api, job, namespace="tester"):
    return api.wait_for_job(job.id, namespace=namespace, poll_interval=0.05, timeout=30)


def test_it_runs_and_streams_and_ends(api):
    code = "import os, sys, time\nprint('begun', flush=True)\ntime.sleep(0.3)\nprint(os.environ['A'], os.environ['S'], sys.argv[1])"
    job = run(api, code, "x", env={"A": "1"}, secrets={"S": "hidden"}, labels={"a": "b"}, flavor="t4-small")
    assert job.owner.name == "tester" and job.url.endswith(f"/jobs/tester/{job.id}") and job.labels["a"] == "b"
    lines = list(api.fetch_job_logs(job_id=job.id, namespace="tester", follow=True))
    assert lines == ["begun", "1 hidden x"]
    info = end_of(api, job)
    assert info.status.stage == "COMPLETED" and info.durations.total_secs >= 0 and info.flavor == "t4-small"
    assert "hidden" not in str(info), "a secret is told"
    assert list(api.fetch_job_logs(job_id=job.id, namespace="tester", tail=1)) == ["1 hidden x"]


def test_uv_runs_a_script(api, tmp_path):
    command = ["sh", "-c", "echo 'import sys; print(sys.argv[1:])' > t.py && uv run --with x t.py --smoke"]
    job = api.run_job(image="ghcr.io/astral-sh/uv:python3.12-bookworm", command=command, namespace="tester")
    assert end_of(api, job).status.stage == "COMPLETED"
    assert list(api.fetch_job_logs(job_id=job.id, namespace="tester")) == ["['--smoke']"]


def test_one_that_fails_is_an_error_and_says_so(api):
    info = end_of(api, run(api, "raise SystemExit('no')"))
    assert info.status.stage == "ERROR" and "exit code: 1" in info.status.message


def test_cancelled_it_is_gone(api, hub):
    job = run(api, "import time; time.sleep(600)")
    while api.inspect_job(job_id=job.id, namespace="tester").status.stage != "RUNNING":
        time.sleep(0.02)
    api.cancel_job(job_id=job.id, namespace="tester")
    assert end_of(api, job).status.stage == "CANCELED"
    assert hub.jobs.jobs[job.id].process.wait(10) != 0


def test_its_time_is_kept(api):
    info = end_of(api, run(api, "import time; time.sleep(600)", timeout=1))
    assert info.status.stage == "ERROR" and info.status.message == "Job timeout"


@pytest.mark.long
def test_jobs_are_found_by_label_over_pages(api):
    made = [run(api, "pass", labels={"batch": "one", "n": str(n)}).id for n in range(25)]
    assert [job.id for job in api.list_jobs(labels={"batch": "one"}, namespace="tester")] == made[::-1]
    (one,) = api.list_jobs(labels={"batch": "one", "n": "7"}, namespace="tester")
    assert one.id == made[7]
    assert list(api.list_jobs(labels={"batch": "none"}, namespace="tester")) == []


def test_hardware_has_a_price(api):
    machines = {one.name: one for one in api.list_jobs_hardware()}
    assert machines["cpu-basic"].accelerator is None and machines["cpu-basic"].unit_label == "minute"
    assert machines["a100-large"].accelerator.model == "A100" and machines["a100-large"].unit_cost_usd > 0


@pytest.mark.parametrize(
    ("options", "status"),
    [({"flavor": "h100-huge"}, 400), ({"namespace": "other"}, 403), ({"token": "hf_reader"}, 403), ({"token": "hf_no"}, 401)],
)  # fmt: skip
def test_what_is_refused(api, options, status):
    with pytest.raises(HfHubHTTPError) as refused:
        run(api, "pass", **options)
    assert refused.value.response.status_code == status


def test_without_credit_nothing_runs_and_with_it_it_is_spent(api, hub):
    hub.jobs.credit["lab"] = 0.0
    with pytest.raises(HfHubHTTPError) as refused:
        run(api, "pass", namespace="lab")
    assert refused.value.response.status_code == 402
    hub.jobs.credit["lab"] = 1.0
    end_of(api, run(api, "import time; time.sleep(0.3)", namespace="lab"), "lab")
    assert 0.99 < hub.jobs.credit["lab"] < 1.0


def test_one_of_somebody_elses_or_deleted_is_not_there(api, hub):
    job = run(api, "import time; time.sleep(600)")
    with pytest.raises(HfHubHTTPError):
        api.inspect_job(job_id=job.id, namespace="other")
    hub.jobs.delete(job.id)
    with pytest.raises(JobNotFoundError):
        api.inspect_job(job_id=job.id, namespace="tester")


def test_a_log_whose_connection_breaks_goes_on_where_it_was(api, hub):
    job = run(api, "import time\nfor n in range(30): print(f'line {n}', flush=True); time.sleep(0.02)")
    hub.fail(r"/logs", drop=600)
    lines = list(api.fetch_job_logs(job_id=job.id, namespace="tester", follow=True))
    assert lines == [f"line {n}" for n in range(30)]


def test_metrics_come_while_it_runs(api):
    job = run(api, "import time; time.sleep(600)")
    while api.inspect_job(job_id=job.id, namespace="tester").status.stage != "RUNNING":
        time.sleep(0.02)
    (sample,) = api.fetch_job_metrics(job_id=job.id, namespace="tester")
    assert sample["memory_total_bytes"] > 0
    api.cancel_job(job_id=job.id, namespace="tester")
    end_of(api, job)
    assert list(api.fetch_job_metrics(job_id=job.id, namespace="tester")) == []
