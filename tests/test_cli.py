"""Bad input to the command: one clear line, exit code 2, nothing overwritten."""

import pytest

from harness.cli import main

BAD = {
    "unknown command": (["sped"], "sped"),
    "unknown option": (["plan", "--budgt", "2h"], "--budgt"),
    "unknown profile": (["plan", "defualt"], "did you mean 'default'"),
    "unknown implementation": (["check", "torch_eagr"], "did you mean torch_eager"),
    "unknown dtype": (["check", "torch_eager", "--dtype", "float31"], "did you mean 'float32'"),
    "unknown cases": (["check", "torch_eager", "--cases", "quik"], "did you mean 'quick'"),
    "unknown device": (["check", "torch_eager", "--device", "gpu"], "'cpu', 'cuda'"),
    "unknown filter field": (["plan", "--only", "bach=8"], "did you mean 'batch'"),
    "filter without value": (["plan", "--only", "batch"], "batch"),
    "filter that keeps nothing": (["plan", "--only", "batch=7"], "7"),
    "budget that is no time": (["plan", "--budget", "soon"], "soon"),
    "report without a run": (["report", "--out", "nowhere-at-all"], "nowhere-at-all"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_gives_one_line_and_exit_code_2(name, capsys):
    words, expected = BAD[name]
    assert main(words) == 2
    captured = capsys.readouterr()
    assert expected in captured.err
    assert captured.err.startswith("quasibench: ")
    assert captured.err.count("\n") == 1
    assert captured.out == ""


def test_a_mistake_in_our_own_code_is_not_hidden(monkeypatch):
    import harness.machine.doctor

    def broken():
        raise ZeroDivisionError

    monkeypatch.setattr(harness.machine.doctor, "show", broken)
    with pytest.raises(ZeroDivisionError):
        main(["doctor"])


def test_no_words_show_the_help(capsys):
    assert main([]) == 0
    assert "speed" in capsys.readouterr().out


def test_doctor_lists_the_compiler_and_the_packages(capsys):
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert "C++ compiler" in out
    assert "numpy" in out


def test_list_shows_every_implementation(capsys):
    import impls

    assert main(["list"]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in impls.names())


def test_check_names_the_failed_claim_of_a_mutant_in_words(monkeypatch, capsys):
    import impls
    from tests.mutants.base import card
    from tests.mutants.wrong import MUTANTS

    name = next(name for name, (mistake, *_) in MUTANTS.items() if mistake == 8)
    _, net, check, words = MUTANTS[name]
    monkeypatch.setattr(impls, "get", lambda asked: card(net, name))
    assert main(["check", name, "--dtype", "float32"]) == 1
    out = capsys.readouterr().out
    failed = [line for line in out.splitlines() if line.startswith(f"FAILED {name}: ")]
    assert any(words in line for line in failed)
    assert check in out


@pytest.mark.parametrize("words", [["speed", "smoke", "--out"], ["check", "lstm_torch", "--jsonl"]])
def test_a_place_that_cannot_be_written_is_one_line(words, tmp_path, capsys):
    pytest.importorskip("torch")
    (tmp_path / "file").write_text("x")
    assert main([*words, str(tmp_path / "file" / "below")]) == 2
    error = capsys.readouterr().err
    assert "file" in error
    assert error.count("\n") == 1


def test_a_profile_file_with_the_name_of_a_packaged_one_is_refused(tmp_path, capsys):
    (tmp_path / "default.toml").write_text("")
    assert main(["plan", str(tmp_path / "default.toml")]) == 2
    assert "give your file another name" in capsys.readouterr().err
