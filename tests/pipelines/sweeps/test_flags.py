"""The command line of sweeps: protocol, spaces, seeds of the winner."""

from __future__ import annotations

import pytest

from pipelines import sweep
from pipelines.sweeps.flags import parse, request_from
from tests.helpers.sweep_plans import request_of
from vlmodels import methods
from vlmodels.errors import UserError


def test_the_protocol_is_the_published_ablations_or_the_users(clips):
    def protocol(*arguments):
        return parse(["--data", str(clips), *arguments], "")[1]

    assert protocol("--space", "insertion") == "b2n"
    assert protocol("--method", "omniclip", "--space", "ratio") == "supervised"
    assert protocol("--method", "omniclip", "--space", "ratio", "--protocol", "few_shot") == "few_shot"
    assert protocol("--method", "omniclip", "--space", "search") == "b2n"


def test_winner_seeds(clips):
    def seeds(text):
        return request_of(clips, f"--winner-seeds={text}").winner_seeds

    assert request_of(clips).winner_seeds == (1, 2, 3)
    assert seeds("4,5,4") == (4, 5)
    assert seeds("0") == ()
    with pytest.raises(UserError, match="list of whole numbers"):
        seeds("1,b")
    with pytest.raises(UserError, match="list of whole numbers"):
        seeds("-1")


def test_the_list_of_spaces_needs_nothing_else_and_goes_to_stdout(capsys):
    assert sweep.main(["--space", "list"]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    names = [line.split()[0] for line in printed.out.splitlines()[1:]]
    assert names[:2] == ["variants", "dims"]
    assert names[-4:] == ["layers", "layers-apart", "search", "FILE.toml:NAME"]
    assert "MSTA table 6f; b2n" in printed.out


@pytest.mark.parametrize("method", methods.names())
def test_every_methods_spaces_can_be_listed(method, capsys):
    assert sweep.main(["--method", method, "--space=list"]) == 0
    assert capsys.readouterr().out.startswith(f"spaces of {method}\n")


def test_the_protocols_preset_is_the_default_unless_the_ablation_has_its_own(clips):
    assert request_of(clips).base.preset == "b2n"
    assert request_of(clips, "--protocol", "few_shot").base.preset == "fewshot"
    ratio = request_of(clips, "--method", "omniclip", "--space", "ratio")
    assert ratio.base.preset == ratio.ablation.preset
    assert request_of(clips, "--preset", "fewshot", "--space", "insertion").base.preset == "fewshot"


def test_parsed_flags_are_not_changed(clips):
    args, protocol = parse(["--data", str(clips), "--set", "optim.lr=1e-3"], "")
    assert request_from(args, protocol).base.protocol.holdout == 0.2
    assert (args.set, args.preset) == (["optim.lr=1e-3"], None)


def test_spaces_of_no_method_are_a_mistake():
    with pytest.raises(UserError, match="unknown method 'mst'"):
        sweep.main(["--space", "list", "--method", "mst"])
