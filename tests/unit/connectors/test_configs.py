"""The configs that a user writes, in the old forms and the new one, and what they refuse."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import wallaroo
from wallaroo import WallarooParameterError


@wallaroo.decoder(header_length=4, length_fmt=">I")
def decode(payload: bytes) -> str:
    return payload.decode()


@wallaroo.encoder
def encode(word: str) -> str:
    return word


class Numbers:
    def initial_value(self) -> int:
        return 1

    def apply(self, previous: int) -> int:
        return previous + 1


class TestTCPSourceConfig:
    def test_has_a_name_a_host_a_port_and_a_decoder(self) -> None:
        config = wallaroo.TCPSourceConfig("lines", "127.0.0.1", 7010, decode)
        assert (config.name, config.host, config.port) == ("lines", "127.0.0.1", 7010)
        assert config.decoder is decode

    def test_without_a_name_is_called_by_its_address(self) -> None:
        config = wallaroo.TCPSourceConfig("127.0.0.1", "7010", decode)
        assert (config.name, config.host, config.port) == ("127.0.0.1:7010", "127.0.0.1", 7010)

    def test_takes_the_port_as_str(self) -> None:
        assert wallaroo.TCPSourceConfig("lines", "h", "7010", decode).port == 7010

    def test_takes_what_the_parsed_addresses_give(self) -> None:
        args = ["app", "--in", "lines@127.0.0.1:7010"]
        ((name, host, port),) = wallaroo.tcp_parse_input_addrs(args)
        config = wallaroo.TCPSourceConfig(name, host, port, decode)
        assert (config.name, config.host, config.port) == ("lines", "127.0.0.1", 7010)

    def test_takes_every_argument_by_name(self) -> None:
        config = wallaroo.TCPSourceConfig(
            name="lines",
            host="h",
            port=1,
            decoder=decode,
            valid=True,
            parallelism=3,
            max_size=100,
            max_received_count=5,
        )
        assert (config.name, config.max_size, config.max_received_count) == ("lines", 100, 5)

    def test_takes_the_old_positional_arguments(self) -> None:
        named = wallaroo.TCPSourceConfig("lines", "h", 1, decode, True, 10, 99, 7)
        assert (named.max_size, named.max_received_count) == (99, 7)
        assert wallaroo.TCPSourceConfig("h", "1", decode, 10).port == 1

    def test_listens(self) -> None:
        assert wallaroo.TCPSourceConfig("lines", "h", 1, decode).listens

    @pytest.mark.parametrize("port", ["", "x", -1, 65536, "70100", None, "7010.0"], ids=repr)
    def test_refuses_what_is_no_port(self, port: Any) -> None:
        with pytest.raises(WallarooParameterError) as caught:
            wallaroo.TCPSourceConfig("lines", "h", port, decode)
        assert str(caught.value) == f"TCPSourceConfig 'lines': {port!r} is not a port"

    @pytest.mark.parametrize("host", [None, 7010, b"h"], ids=repr)
    def test_refuses_what_is_no_host(self, host: Any) -> None:
        with pytest.raises(WallarooParameterError) as caught:
            wallaroo.TCPSourceConfig("lines", host, 7010, decode)
        assert str(caught.value) == f"TCPSourceConfig 'lines': {host!r} is not a host"

    @pytest.mark.parametrize("decoder", [None, bytes.decode, encode], ids=repr)
    def test_refuses_what_is_no_decoder(self, decoder: Any) -> None:
        with pytest.raises(WallarooParameterError) as caught:
            wallaroo.TCPSourceConfig("lines", "h", 7010, decoder)
        assert str(caught.value) == (
            "TCPSourceConfig 'lines': decoder must be decorated with @wallaroo.decoder, "
            f"not {decoder!r}"
        )

    @pytest.mark.parametrize("option", ["max_size", "max_received_count"])
    @pytest.mark.parametrize("value", [0, -1, "10", None, 1.5], ids=repr)
    def test_refuses_limits_below_one(self, option: str, value: Any) -> None:
        options: dict[str, Any] = {option: value}
        with pytest.raises(WallarooParameterError, match=f"'lines': {option} must be at least 1"):
            wallaroo.TCPSourceConfig("lines", "h", 7010, decode, **options)


class TestTCPSinkConfig:
    def test_has_a_host_a_port_and_an_encoder(self) -> None:
        config = wallaroo.TCPSinkConfig("127.0.0.1", "7002", encode)
        assert (config.host, config.port, config.encoder) == ("127.0.0.1", 7002, encode)

    @pytest.mark.parametrize(
        ("host", "port", "encoder", "message"),
        [
            ("", 1, encode, "'' is not a host"),
            (None, 1, encode, "None is not a host"),
            ("h", "x", encode, "'x' is not a port"),
            ("h", 65536, encode, "65536 is not a port"),
            ("h", 1, str.encode, "h:1: encoder must be decorated with @wallaroo.encoder"),
            ("h", 1, decode, "h:1: encoder must be decorated with @wallaroo.encoder"),
        ],
    )
    def test_refuses_what_it_can_not_use(
        self, host: Any, port: Any, encoder: Any, message: str
    ) -> None:
        with pytest.raises(WallarooParameterError) as caught:
            wallaroo.TCPSinkConfig(host, port, encoder)
        assert str(caught.value).startswith("TCPSinkConfig")
        assert message in str(caught.value)


class TestGenSourceConfig:
    def test_has_a_name_and_a_generator(self) -> None:
        config = wallaroo.GenSourceConfig("numbers", Numbers())
        assert config.name == "numbers"

    def test_has_one_partition_whatever_it_is_called(self) -> None:
        """Ruling 11: renamed, it goes on where it was."""
        for name in ("numbers", "figures"):
            config = wallaroo.GenSourceConfig(name, Numbers())
            assert config.partitions() == ["all"]

    def test_without_a_name_is_the_old_form(self) -> None:
        gen = Numbers()
        assert wallaroo.GenSourceConfig(gen).gen is gen

    @pytest.mark.parametrize("method", ["initial_value", "apply"])
    def test_refuses_a_generator_without_its_methods(self, method: str) -> None:
        class Half:
            pass

        for name in {"initial_value", "apply"} - {method}:
            setattr(Half, name, lambda *args: 1)
        gen: Any = Half()
        with pytest.raises(WallarooParameterError, match=rf"has no method {method}\(\)"):
            wallaroo.GenSourceConfig("numbers", gen)

    def test_refuses_a_name_alone(self) -> None:
        name: Any = "numbers"
        with pytest.raises(WallarooParameterError, match="'numbers' has no method"):
            wallaroo.GenSourceConfig(name)


class TestFileConfigs:
    def test_a_source_has_a_name_and_a_path(self) -> None:
        for path in ("book/*.txt", Path("book") / "*.txt"):
            config = wallaroo.FileSourceConfig("book", path)
            assert (config.name, config.path, config.decoder) == ("book", "book/*.txt", None)

    def test_a_source_may_have_a_decoder(self) -> None:
        assert wallaroo.FileSourceConfig("book", "frames", decode).decoder is decode

    @pytest.mark.parametrize("path", [None, 3, ["a"]], ids=repr)
    def test_a_source_refuses_what_is_no_path(self, path: Any) -> None:
        with pytest.raises(WallarooParameterError) as caught:
            wallaroo.FileSourceConfig("book", path)
        assert str(caught.value) == f"FileSourceConfig 'book': {path!r} is not a path"

    @pytest.mark.parametrize("decoder", [bytes.decode, encode, "utf-8"], ids=repr)
    def test_a_source_refuses_what_is_no_decoder(self, decoder: Any) -> None:
        with pytest.raises(WallarooParameterError, match="'book': decoder must be decorated"):
            wallaroo.FileSourceConfig("book", "path", decoder)

    @pytest.mark.parametrize("path", [None, 3, ["a"]], ids=repr)
    def test_a_sink_refuses_what_is_no_path(self, path: Any) -> None:
        with pytest.raises(WallarooParameterError) as caught:
            wallaroo.FileSinkConfig(path)
        assert str(caught.value) == f"FileSinkConfig: {path!r} is not a path"

    @pytest.mark.parametrize("encoder", [str.encode, decode, "utf-8"], ids=repr)
    def test_a_sink_refuses_what_is_no_encoder(self, encoder: Any) -> None:
        with pytest.raises(WallarooParameterError, match=r"out\.txt: encoder must be decorated"):
            wallaroo.FileSinkConfig("out.txt", encoder)


@pytest.mark.parametrize(
    "config",
    [
        lambda: wallaroo.TCPSourceConfig(host="h", port="7010", decoder=decode),
        lambda: wallaroo.TCPSourceConfig("h", "7010", decoder=decode),
        lambda: wallaroo.TCPSourceConfig("h", 7010, decode, parallelism=3),
        lambda: wallaroo.TCPSourceConfig(name="h:7010", host="h", port=7010, decoder=decode),
        lambda: wallaroo.TCPSourceConfig("h:7010", "h", 7010, decoder=decode),
    ],
)
def test_a_tcp_source_takes_its_arguments_by_name_in_either_form(
    config: Callable[[], wallaroo.TCPSourceConfig[Any]],
) -> None:
    made = config()
    assert (made.name, made.host, made.port) == ("h:7010", "h", 7010)


def test_a_generator_may_be_named_as_in_0_6_1() -> None:
    class Ones:
        def initial_value(self) -> int:
            return 1

        def apply(self, previous: int) -> int:
            return previous

    gen = Ones()
    assert wallaroo.GenSourceConfig(gen_instance=gen).gen is gen
    assert wallaroo.GenSourceConfig(name="ones", gen_instance=gen).name == "ones"
