"""Addresses in an application's arguments, as Wallaroo 0.6.1 wrote them."""

import pytest

from wallaroo import WallarooParameterError, tcp_parse_input_addrs, tcp_parse_output_addrs


@pytest.mark.parametrize("option", ["--in", "-i"])
class TestInputs:
    def test_have_a_name_a_host_and_a_port(self, option: str) -> None:
        assert tcp_parse_input_addrs(["app", option, "lines@127.0.0.1:7010"]) == [
            ("lines", "127.0.0.1", "7010")
        ]

    def test_may_be_several(self, option: str) -> None:
        assert tcp_parse_input_addrs(["app", option, "a@h:1,b@h:2,c@other:3"]) == [
            ("a", "h", "1"),
            ("b", "h", "2"),
            ("c", "other", "3"),
        ]

    def test_without_a_name_are_a_host_and_a_port(self, option: str) -> None:
        assert tcp_parse_input_addrs(["app", option, "h:1,b@h:2"]) == [("h", "1"), ("b", "h", "2")]

    def test_may_have_spaces_and_signs_in_their_name(self, option: str) -> None:
        assert tcp_parse_input_addrs(["app", option, "lines of a: b@c@h:1"]) == [
            ("lines of a: b@c", "h", "1")
        ]

    def test_may_be_ipv6(self, option: str) -> None:
        assert tcp_parse_input_addrs(["app", option, "lines@[::1]:7010"]) == [
            ("lines", "::1", "7010")
        ]

    def test_stand_anywhere_among_other_arguments(self, option: str) -> None:
        args = ["app", "--verbose", "3", "file", option, "a@h:1", "--out", "h:2", "rest"]
        assert tcp_parse_input_addrs(args) == [("a", "h", "1")]

    @pytest.mark.parametrize(
        "address",
        ["h", "h:", ":1", "a@h", "a@:1", "a@h:port", "a@h:-1", "a@h:1.5", "a@h:²", "", "a@h:1,"],
    )
    def test_that_are_malformed_are_refused(self, option: str, address: str) -> None:
        with pytest.raises(WallarooParameterError, match=r"--in: '.*' is not host:port"):
            tcp_parse_input_addrs(["app", option, address])

    def test_whose_value_is_missing_are_refused(self, option: str) -> None:
        with pytest.raises(WallarooParameterError, match="--in: expected one argument"):
            tcp_parse_input_addrs(["app", option])


@pytest.mark.parametrize("option", ["--out", "-o"])
class TestOutputs:
    def test_have_a_host_and_a_port(self, option: str) -> None:
        assert tcp_parse_output_addrs(["app", option, "127.0.0.1:7002"]) == [("127.0.0.1", "7002")]

    def test_may_be_several(self, option: str) -> None:
        assert tcp_parse_output_addrs(["app", option, "a:1,b:2"]) == [("a", "1"), ("b", "2")]

    def test_may_be_ipv6(self, option: str) -> None:
        assert tcp_parse_output_addrs(["app", option, "[::1]:7002"]) == [("::1", "7002")]

    @pytest.mark.parametrize("address", ["a", "a:", ":1", "a:b", "", "a:1,"])
    def test_that_are_malformed_are_refused(self, option: str, address: str) -> None:
        with pytest.raises(WallarooParameterError, match=r"--out: '.*' is not host:port"):
            tcp_parse_output_addrs(["app", option, address])


def test_inputs_that_are_missing_are_asked_for() -> None:
    with pytest.raises(WallarooParameterError, match="the application needs --in name@host:port"):
        tcp_parse_input_addrs(["app", "--out", "a:1"])


def test_outputs_that_are_missing_are_asked_for() -> None:
    with pytest.raises(WallarooParameterError, match="the application needs --out host:port"):
        tcp_parse_output_addrs(["app", "--in", "a:1"])


def test_an_option_that_begins_alike_is_another() -> None:
    with pytest.raises(WallarooParameterError, match="the application needs --in"):
        tcp_parse_input_addrs(["app", "--input", "a@h:1"])


def test_the_arguments_stay_as_they_were() -> None:
    args = ["app", "--in", "a@h:1"]
    tcp_parse_input_addrs(args)
    assert args == ["app", "--in", "a@h:1"]
