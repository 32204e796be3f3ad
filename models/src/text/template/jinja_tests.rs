//! Expressions with the texts that jinja2 3.1.6 makes of them, in the environment that transformers sets up.

use serde_json::json;

use super::{ChatTemplate, Conversation, LocalTime};

/// Stands for an exception.
const FAILS: &str = "\u{0}";

const CASES: &[(&str, &str)] = &[
    ("{{ f }} {{ g }} {{ h }} {{ i }} {{ n }} {{ t }} {{ undefined_thing }}", "1.0 1e+16 1e-05 3 None True "),
    ("{{ 'x' ~ f ~ n ~ t ~ i }}", "x1.0NoneTrue3"),
    (
        "{{ f | string }}|{{ l | string }}|{{ d | string }}",
        "1.0|[1, 'two', None, True, 2.5]|{'b': 1, 'A': {'x': [1, 2]}, 'c': \"it's\"}",
    ),
    (
        "{{ l }} {{ d }} {{ (1,) }} {{ (1, 'a') }}",
        "[1, 'two', None, True, 2.5] {'b': 1, 'A': {'x': [1, 2]}, 'c': \"it's\"} (1,) (1, 'a')",
    ),
    ("{{ messages[0].content }}", "  Hi <b>\"you\"</b> </think> & 'me' ü\u{2028} "),
    ("{{ messages[0].content | tojson }}", "\"  Hi <b>\\\"you\\\"</b> </think> & 'me' ü\u{2028} \""),
    ("{{ d | tojson }}", "{\"b\": 1, \"A\": {\"x\": [1, 2]}, \"c\": \"it's\"}"),
    (
        "{{ d | tojson(indent=2) }}",
        "{\n  \"b\": 1,\n  \"A\": {\n    \"x\": [\n      1,\n      2\n    ]\n  },\n  \"c\": \"it's\"\n}",
    ),
    ("{{ d | tojson(sort_keys=true) }}", "{\"A\": {\"x\": [1, 2]}, \"b\": 1, \"c\": \"it's\"}"),
    ("{{ d | tojson(separators=(',', ':')) }}", "{\"b\":1,\"A\":{\"x\":[1,2]},\"c\":\"it's\"}"),
    ("{{ u | tojson(ensure_ascii=true) }}", "\"\\u00c9t\\u00e9 stra\\u00dfe\""),
    ("{{ l | tojson(indent=4) }}", "[\n    1,\n    \"two\",\n    null,\n    true,\n    2.5\n]"),
    ("{{ [] | tojson(indent=4) }}{{ {} | tojson(indent=4) }}", "[]{}"),
    ("{{ {1: 2, true: 3, none: 4} | tojson }}", "{\"1\": 3, \"null\": 4}"),
    ("{{ g | tojson }} {{ h | tojson }} {{ f | tojson }} {{ 1e308 * 10 }}", "1e+16 1e-05 1.0 inf"),
    ("{{ undefined_thing | tojson }}", FAILS),
    (
        "{{ n is iterable }} {{ s is iterable }} {{ l is iterable }} {{ d is iterable }} {{ undefined_thing is iterable }} {{ i is iterable }}",
        "False True True True True False",
    ),
    (
        "{{ n is none }} {{ t is true }} {{ t is boolean }} {{ i is number }} {{ i is integer }} {{ f is float }} {{ s is sequence }} {{ d is mapping }} {{ l is sequence }} {{ d is sequence }} {{ n is sequence }}",
        "True True True True True True True True True True False",
    ),
    ("{% for x in n %}{{ x }}{% endfor %}", FAILS),
    ("{% for x in undefined_thing %}{{ x }}{% else %}none{% endfor %}", "none"),
    (
        "{{ s.split(',') }} {{ s.split(',', 1) }} {{ s.rsplit(',', 1) }} {{ w.split() }} {{ w.split(None, 1) }} {{ w.rsplit(None, 1) }}",
        "['a', 'b', '', 'c'] ['a', 'b,,c'] ['a,b,', 'c'] ['one', 'two', 'three'] ['one', 'two\\tthree '] [' one  two', 'three']",
    ),
    (
        "{{ w.strip() }}|{{ w.lstrip() }}|{{ w.rstrip() }}|{{ s.strip('ac') }}|{{ '##x##'.lstrip('#') }}|{{ 'abc'.strip('') }}",
        "one  two\tthree|one  two\tthree | one  two\tthree|,b,,|x##|abc",
    ),
    ("{{ 'a</think>b</think>c'.split('</think>')[-1] }} {{ 'abc'.split('') }}", FAILS),
    (
        "{{ s.startswith('a') }} {{ s.endswith(('x', 'c')) }} {{ s.replace(',', ';', 2) }} {{ s | replace(',', ';') }} {{ 'aaa'.replace('', '-') }}",
        "True True a;b;,c a;b;;c -a-a-a-",
    ),
    ("{{ s.find('b') }} {{ s.find('z') }} {{ s.count(',') }} {{ s.index('b') }}", "2 -1 3 2"),
    ("{{ s.index('z') }}", FAILS),
    (
        "{{ u.upper() }} {{ u.lower() }} {{ u.title() }} {{ u.capitalize() }} {{ u | title }} {{ u | capitalize }} {{ \"they're bill's\" | title }} {{ \"they're bill's\".title() }}",
        "ÉTÉ STRASSE été straße Été Straße Été straße Été Straße Été straße They're Bill's They'Re Bill'S",
    ),
    (
        "{{ 'a1'.isalnum() }} {{ '12'.isdigit() }} {{ ''.isdigit() }} {{ 'ab'.isalpha() }} {{ ' '.isspace() }} {{ 'AB'.isupper() }} {{ 'ab'.islower() }}",
        "True True False True True True True",
    ),
    (
        "{{ 'abc'.removeprefix('a') }} {{ 'abc'.removesuffix('c') }} {{ 'a=b=c'.partition('=') }} {{ 'a=b=c'.rpartition('=') }}",
        "bc ab ('a', '=', 'b=c') ('a=b', '=', 'c')",
    ),
    (
        "{{ 'a\\nb\\r\\nc'.splitlines() }} {{ ', '.join(['a', 'b']) }} {{ '%s-%d' | format('x', 3) }} {{ '{}-{}'.format('x', 3) }}",
        "['a', 'b', 'c'] a, b x-3 x-3",
    ),
    (
        "{{ 'x'.zfill(3) }} {{ '7'.zfill(3) }} {{ 'x'.ljust(3) }}| {{ 'x'.rjust(3) }}| {{ 'x'.center(3) }}|",
        "00x 007 x  |   x|  x |",
    ),
    (
        "{{ d.items() | list }} {{ d.keys() | list }} {{ d.values() | list }} {{ d.get('b') }} {{ d.get('z') }} {{ d.get('z', 9) }}",
        "[('b', 1), ('A', {'x': [1, 2]}), ('c', \"it's\")] ['b', 'A', 'c'] [1, {'x': [1, 2]}, \"it's\"] 1 None 9",
    ),
    (
        "{{ p.items() | list }} {{ p['items'] }} {{ p.keys() | list }}",
        "[('items', {'type': 'string'}), ('keys', 'k')] {'type': 'string'} ['items', 'keys']",
    ),
    (
        "{{ d | dictsort }} {{ d | dictsort(reverse=true) }} {{ d | items | list }}",
        "[('A', {'x': [1, 2]}), ('b', 1), ('c', \"it's\")] [('c', \"it's\"), ('b', 1), ('A', {'x': [1, 2]})] [('b', 1), ('A', {'x': [1, 2]}), ('c', \"it's\")]",
    ),
    ("{{ d | length }} {{ l | length }} {{ s | length }} {{ u | length }} {{ s | count }}", "3 5 6 10 6"),
    ("{{ d.pop('b') }}", FAILS),
    ("{{ l.append(1) }}", FAILS),
    ("{{ d.update({'x': 1}) }}", FAILS),
    (
        "{{ l[-1] }} {{ l[1:] }} {{ l[::-1] }} {{ l[:-1] }} {{ s[0] }} {{ s[-1] }} {{ s[1:3] }} {{ s[::-1] }} {{ [][::-1] }} {{ ''[::-1] }}",
        "2.5 ['two', None, True, 2.5] [2.5, True, None, 'two', 1] [1, 'two', None, True] a c ,b c,,b,a [] ",
    ),
    ("{{ l[10] }}{{ d.zzz }}{{ n.x }}", ""),
    ("{{ undefined_thing.x }}", FAILS),
    ("{{ 'a' + 1 }}", FAILS),
    ("{{ 'a' + n }}", FAILS),
    ("{{ 'a' + undefined_thing }}", FAILS),
    (
        "{{ 7 // 2 }} {{ -7 // 2 }} {{ 7 % 3 }} {{ -7 % 3 }} {{ 7 / 2 }} {{ 4 / 2 }} {{ 2 ** 3 }} {{ 2 ** 0.5 }} {{ 1 == 1.0 }} {{ 'a' * 3 }} {{ [1] * 2 }} {{ [1] + [2] }}",
        "3 -4 1 2 3.5 2.0 8 1.4142135623730951 True aaa [1, 1] [1, 2]",
    ),
    (
        "{{ 10 | int }} {{ '12' | int }} {{ 'x' | int }} {{ 'x' | int(5) }} {{ '1.9' | int }} {{ 2.7 | int }} {{ '3' | float }} {{ t | int }}",
        "10 12 0 5 1 2 3.0 1",
    ),
    (
        "{{ 'a' if n }}|{{ 'a' if t else 'b' }}|{{ n or 'x' }}|{{ e or 'y' }}|{{ i and 'z' }}|{{ not e }}",
        "|a|x|y|z|True",
    ),
    (
        "{{ n | default('q') }}|{{ undefined_thing | default('q') }}|{{ e | default('q', true) }}|{{ e | default('q') }}",
        "None|q|q|",
    ),
    (
        "{{ [1, 2, 3] | select('gt', 1) | list }} {{ [{'a': 1}, {'a': 2}] | map(attribute='a') | list }} {{ ['a', 'b'] | map('upper') | join('-') }} {{ [{'a': 1}, {'a': 2}] | selectattr('a', 'equalto', 2) | list }} {{ [{'a': 1}, {'b': 2}] | selectattr('a', 'defined') | list }} {{ [1, 1, 2] | unique | list }}",
        "[2, 3] [1, 2] A-B [{'a': 2}] [{'a': 1}] [1, 2]",
    ),
    ("{{ [1, 2] | map('string') | tojson }}", FAILS),
    ("{{ [1, 2] | map('string') | list | tojson }}", "[\"1\", \"2\"]"),
    (
        "{{ [3, 1, 2] | sort }} {{ ['b', 'A'] | sort }} {{ [{'a': 2}, {'a': 1}] | sort(attribute='a') }} {{ [3, 1] | min }} {{ [3, 1] | max }} {{ [1, 2] | sum }} {{ [1, 2] | first }} {{ [1, 2] | last }} {{ [] | first }} {{ [1, 2] | reverse | list }} {{ 'abc' | reverse }}",
        "[1, 2, 3] ['A', 'b'] [{'a': 1}, {'a': 2}] 1 3 3 1 2  [2, 1] cba",
    ),
    (
        "{{ '  x ' | trim }}|{{ 'xxaxx' | trim('x') }}|{{ 'a\\nb' | indent(2) }}|{{ 'a\\nb' | indent(2, first=true) }}|{{ 'a\\n\\nb' | indent(4) }}",
        "x|a|a\n  b|  a\n  b|a\n\n    b",
    ),
    (
        "{{ 'abc' | list }} {{ d | list }} {{ 'Ab' | lower }} {{ 'Ab' | upper }} {{ 3.7 | round }} {{ -3 | abs }} {{ '<x>' | e }} {{ '<x>' | safe }} {{ '<x>' }}",
        "['a', 'b', 'c'] ['b', 'A', 'c'] ab AB 4.0 3 &lt;x&gt; <x> <x>",
    ),
    (
        "{{ l | join(', ') }} {{ [1, none, 2.0] | join }} {{ [{'a': 1}] | join(',', attribute='a') }}",
        "1, two, None, True, 2.5 1None2.0 1",
    ),
    (
        "{{ 'a' in s }} {{ 'z' in s }} {{ 'b' in d }} {{ 2.5 in l }} {{ n in l }} {{ 'x' not in d }}",
        "True False True True True True",
    ),
    ("{{ 'a' in n }}", FAILS),
    ("{{ 1 < 2 < 3 }} {{ 'a' < 'b' }} {{ 'a' == n }} {{ n == none }} {{ none is none }}", "True True False True True"),
    ("{{ range(3) | list }} {{ range(1, 7, 2) | list }} {{ range(3, 0, -1) | list }}", "[0, 1, 2] [1, 3, 5] [3, 2, 1]"),
    (
        "{% for x in [1, 2, 3] %}{{ loop.index }}{{ loop.index0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }}{{ loop.previtem }}{{ loop.nextitem }};{% endfor %}",
        "10TrueFalse32;21FalseFalse313;32FalseTrue32;",
    ),
    (
        "{% for x in [1, 2, 3, 4] %}{% if x == 2 %}{% continue %}{% endif %}{% if x == 4 %}{% break %}{% endif %}{{ x }}{% endfor %}",
        "13",
    ),
    ("{% for k, v in d.items() if k != 'b' %}{{ k }}={{ v }};{% endfor %}", "A={'x': [1, 2]};c=it's;"),
    ("{% set ns = namespace(a=1) %}{% for x in [1, 2] %}{% set ns.a = ns.a + x %}{% endfor %}{{ ns.a }}", "4"),
    (
        "{% set x = 1 %}{% for y in [1] %}{% set x = 2 %}{% endfor %}{{ x }}{% if true %}{% set x = 3 %}{% endif %}{{ x }}",
        "13",
    ),
    ("{% set x %}a{{ i }}b{% endset %}{{ x }}{% set x | upper %}q{% endset %}{{ x }}", "a3bQ"),
    (
        "{% macro m(a, b='d') %}<{{ a }}{{ b }}>{% endmacro %}{{ m(1) }}{{ m(1, 2) }}{{ m(b=3, a=4) }}{{ m() }}",
        "<1d><12><43><d>",
    ),
    ("{% macro m() %}[{{ caller() }}]{% endmacro %}{% call m() %}x{% endcall %}", "[x]"),
    ("{% set a, b = 1, 2 %}{{ a }}{{ b }}{% with c = 3 %}{{ c }}{% endwith %}", "123"),
    ("{% filter upper %}abc{% endfilter %}{% raw %}{{ x }}{% endraw %}{# c #}", "ABC{{ x }}"),
    ("a{% generation %}b{{ i }}{% endgeneration %}c", "ab3c"),
    ("  {%- generation -%}  b  {%- endgeneration -%}  c", "bc"),
    ("  {% if true %}\n  x\n  {% endif %}\ny\n", "  x\ny"),
    ("a  {%- if true -%}  b  {%- endif +%}  c", "ab  c"),
    ("{{ raise_exception('no ' + s) }}", FAILS),
    ("{{ d['b'] }}{{ d[\"A\"].x[0] }}{{ d.A['x'] | length }}{{ d.c }}", "112it's"),
    ("{{ s | from_json }}", FAILS),
    ("{{ s | split(',') }}", FAILS),
    ("{{ \"a\" \"b\" }}{{ 'tab\\tnew\\\\n' }}{{ '\\u00e9' }}", "abtab\tnew\\né"),
    ("{{ {'a': 1, **d} }}", FAILS),
    (
        "{{ 1_000 }} {{ 0x1f }} {{ 1e3 }} {{ 1.50 }} {{ 100000000000000000000 }} {{ 123456789.123 }} {{ 0.1 + 0.2 }}",
        "1000 31 1000.0 1.5 100000000000000000000 123456789.123 0.30000000000000004",
    ),
    (
        "{{ d is defined }} {{ undefined_thing is undefined }} {{ d.b is divisibleby(1) }} {{ 3 is odd }} {{ 'a' is in s }} {{ 'A' is upper }} {{ s is string }}",
        "True True True True True True True",
    ),
    (
        "{{ messages | map(attribute='role') | list }} {{ messages | selectattr('role', 'in', ['user']) | list | length }}",
        "['user'] 1",
    ),
    (
        "{{ messages[1:] | length }} {{ messages[1:] }} {{ (messages[:1] | list)[0].role }} {{ messages[:1] | tojson | length }}",
        "0 [] user 72",
    ),
    ("{{ [1, [2, {'a': [3]}]] | tojson(indent=1) }}", "[\n 1,\n [\n  2,\n  {\n   \"a\": [\n    3\n   ]\n  }\n ]\n]"),
    ("{{ 'line1\\nline2' | replace('\\n', ' ') }} {{ 'x' | replace('x', n) }}", "line1 line2 None"),
    (
        "{{ \"it's\" | tojson }} {{ ['it''s', 'a\"b', \"a'b\\\"c\", 'x\\ny'] }}",
        "\"it's\" ['its', 'a\"b', 'a\\'b\"c', 'x\\ny']",
    ),
    ("{{ messages[0].foo }}|{{ messages[0].foo and messages[0].foo.bar }}", "|"),
    ("{% if messages[0].foo.bar %}x{% endif %}", FAILS),
    (
        "{{ zz ~ 'x' }} {{ zz == none }} {{ zz is none }} {{ zz | length }} {{ not zz }} {{ zz or 'd' }} {{ zz in l }} {{ zz == zz2 }}",
        "x False False 0 True d False True",
    ),
    ("{{ 'x' in zz }}", "False"),
    ("{{ zz() }}", FAILS),
    ("{{ zz + 1 }}", FAILS),
    ("{{ 'abc'['a'] }}|{{ i[0] }}|{{ 'abc'[7] }}", "||"),
    ("{{ l.foo }} {{ 'abc'.foo }} {{ n.foo }} {{ i.foo }}", "   "),
    ("{{ 'abc'.foo() }}", FAILS),
    ("{{ n.strip() }}", FAILS),
    ("{{ [zz] }} {{ {'a': zz} }}", "[Undefined] {'a': Undefined}"),
    ("{{ 1 if zz }}{{ 1 if zz else 2 }}", "2"),
    (
        "{{ messages | selectattr('role', 'equalto', 'user') | list | last }}",
        "{'role': 'user', 'content': '  Hi <b>\"you\"</b> </think> & \\'me\\' ü\\u2028 '}",
    ),
    ("{{ messages | selectattr('role', '==', 'user') | map(attribute='role') | join(',') }}", "user"),
    ("{{ messages | rejectattr('role', 'equalto', 'user') | list }}", "[]"),
    ("{{ (messages | selectattr('role', 'equalto', 'user') | first).role }}", "user"),
    ("{% for m in messages[::-1] %}{{ m.role }}{% endfor %}", "user"),
    ("{% for m in messages[1:] %}{{ m.role }}{% else %}E{% endfor %}", "E"),
    (
        "{% for m in messages if m.role == 'user' %}{{ loop.index }}{{ loop.last }}{{ loop.length }}{% endfor %}",
        "1True1",
    ),
    (
        "{% for x in l %}{{ loop.cycle('a', 'b') }}{{ loop.revindex }}{{ loop.depth }}{{ loop.changed(x) }}{% endfor %}",
        "a51Trueb41Truea31Trueb21Truea11True",
    ),
    ("{% for x in 'abc' %}{{ x }}-{% endfor %}", "a-b-c-"),
    ("{% for k in d %}{{ k }};{% endfor %}", "b;A;c;"),
    ("{% for x in d.values() %}{{ x }};{% endfor %}", "1;{'x': [1, 2]};it's;"),
    ("{% for x in i %}{% endfor %}", FAILS),
    ("{% for a, b in [[1, 2], [3, 4]] %}{{ a }}{{ b }}{% endfor %}", "1234"),
    ("{% for a, b in [[1, 2, 3]] %}{{ a }}{% endfor %}", FAILS),
    ("{{ l[1] }}{{ l['1'] }}{{ d[0] }}", "two"),
    ("{{ (l | length) - 1 }} {{ l | length > 2 }} {{ l[l | length - 1] }}", "4 True 2.5"),
    ("{{ '\\n\\n' }}|{{ '\\\\n' }}|{{ \"\\\"\" }}|{{ '\\'' }}|{{ '\\x41' }}|{{ 'a\\", FAILS),
    ("b' }}", "b' }}"),
    ("{% set x = {'a': 1, 'b': [1, 2]} %}{{ x.a }}{{ x['b'][0] }}{{ x }}", "11{'a': 1, 'b': [1, 2]}"),
    ("{% set x = [] %}{% set x = x + [1] %}{{ x }}{{ x | length }}", "[1]1"),
    ("{% set ns = namespace(l=[]) %}{% for a in [1, 2] %}{% set ns.l = ns.l + [a] %}{% endfor %}{{ ns.l }}", "[1, 2]"),
    ("{{ namespace(a=1).a }}{{ namespace().a }}", "1"),
    ("{% set ns = namespace() %}{% set ns.a = 1 %}{{ ns.a }}{{ ns.b is defined }}", "1False"),
    ("{% set d.x = 1 %}", FAILS),
    (
        "{% if l %}L{% endif %}{% if [] %}E{% endif %}{% if {} %}E{% endif %}{% if 0 %}E{% endif %}{% if 0.0 %}E{% endif %}{% if '' %}E{% endif %}{% if ' ' %}S{% endif %}",
        "LS",
    ),
    ("{% if i == 3 %}a{% elif i == 4 %}b{% else %}c{% endif %}", "a"),
    (
        "{{ i == 3 and f == 1 and t == 1 }} {{ 1 == true }} {{ '1' == 1 }} {{ none == false }} {{ [] == [] }} {{ {'a': 1} == {'a': 1.0} }} {{ [1] == (1,) }}",
        "True True False False True True False",
    ),
    (
        "{{ i != 3 }} {{ not i == 4 }} {{ i in [1, 2, 3] }} {{ i not in (1, 2) }} {{ 'b' in 'abc' }} {{ '' in 'abc' }}",
        "False True True True True True",
    ),
    (
        "{{ [1, 2, 3][1:] }} {{ [1, 2, 3][:-1] }} {{ [1, 2, 3][-2:] }} {{ [1, 2, 3][::2] }} {{ (1, 2, 3)[1:] }} {{ 'hello'[1:-1] }} {{ 'hello'[10:] }} {{ 'hello'[:100] }}",
        "[2, 3] [1, 2] [2, 3] [1, 3] (2, 3) ell  hello",
    ),
    ("{{ messages[0]['content'][:4] }}|{{ messages[0]['content'][2] }}", "  Hi|H"),
    (
        "{{ '%s is %d' | format('a', 2) }} {{ '%05.1f|%x|%e' | format(2.345, 255, 12345.678) }}",
        "a is 2 002.3|ff|1.234568e+04",
    ),
    ("{{ 'a-b_c'.replace('-', '').replace('_', '') }} {{ 'x'.join(['a']) }} {{ ''.join([]) }}", "abc a "),
    ("{{ ''.join([1]) }}", FAILS),
    ("{{ d.get('A').get('x')[0] }} {{ d.get('q', {}).get('r', 'def') }}", "1 def"),
    ("{{ {'x': none}.get('x', 5) }} {{ {'x': none}.x is none }}", "None True"),
    (
        "{{ 'abc' | first }} {{ 'abc' | last }} {{ [] | last }} {{ 'b,a' | sort }} {{ d | list | first }}",
        "a c  [',', 'a', 'b'] b",
    ),
    (
        "{{ [1, 'a', none] | tojson }} {{ (1, 2) | tojson }} {{ 'é\"\\\\/<>&' | tojson }} {{ '\\x01\\x7f' | tojson }} {{ {'é': 'ü'} | tojson(indent=2, ensure_ascii=true) }}",
        "[1, \"a\", null] [1, 2] \"é\\\"\\\\/<>&\" \"\\u0001\u{7f}\" {\n  \"\\u00e9\": \"\\u00fc\"\n}",
    ),
    (
        "{{ l | tojson(indent='\\t') }} {{ d | tojson(indent=0) }} {{ d | tojson(indent=none) }} {{ d | tojson(true) }}",
        "[\n\t1,\n\t\"two\",\n\tnull,\n\ttrue,\n\t2.5\n] {\n\"b\": 1,\n\"A\": {\n\"x\": [\n1,\n2\n]\n},\n\"c\": \"it's\"\n} {\"b\": 1, \"A\": {\"x\": [1, 2]}, \"c\": \"it's\"} {\"b\": 1, \"A\": {\"x\": [1, 2]}, \"c\": \"it's\"}",
    ),
    ("{{ d | tojson(foo=1) }}", FAILS),
    (
        "{{ 3.0 }} {{ 2.50 }} {{ 1e100 }} {{ 1e-7 }} {{ 123456789012345680.0 }} {{ 0.1 }} {{ 1/3 }} {{ -0.0 }} {{ 5 / 1 }} {{ 1e15 }} {{ 5.0 // 2 }} {{ 5 % 2.5 }}",
        "3.0 2.5 1e+100 1e-07 1.2345678901234568e+17 0.1 0.3333333333333333 -0.0 5.0 1000000000000000.0 2.0 0.0",
    ),
    ("{{ 1 / 0 }}", FAILS),
    (
        "{{ [1, 2] | join(', ') | upper }} {{ 'a b' | title }} {{ 'a' ~ 1 ~ none ~ true ~ 1.0 ~ [1] ~ {'a': 1} }}",
        "1, 2 A B a1NoneTrue1.0[1]{'a': 1}",
    ),
    ("{{ [[1, 2], [3]] | sum(start=[]) }} {{ [1, 2] | sum }} {{ [{'a': 1}] | sum(attribute='a') }}", "[1, 2, 3] 3 1"),
    (
        "{{ ['b', 'a', 'C'] | sort | join }} {{ ['b', 'a', 'C'] | sort(case_sensitive=true) | join }} {{ [1, 3, 2] | sort(reverse=true) }}",
        "abC Cab [3, 2, 1]",
    ),
    (
        "{{ [{'a': {'b': 1}}] | map(attribute='a.b') | list }} {{ [{'a': 1}, {}] | map(attribute='a', default=0) | list }} {{ [' a '] | map('trim') | list }}",
        "[1] [1, 0] ['a']",
    ),
    (
        "{{ ['a', '', none, 'b'] | select | list }} {{ ['a', ''] | reject | list }} {{ [1, 2, 3] | select('odd') | list }} {{ ['x', 1] | select('string') | list }}",
        "['a', 'b'] [''] [1, 3] ['x']",
    ),
    (
        "{{ [1, 2, 3, 4, 5] | batch(2, 0) | list }} {{ [1, 2, 3] | slice(2) | list }}",
        "[[1, 2], [3, 4], [5, 0]] [[1, 2], [3]]",
    ),
    (
        "{{ [{'k': 1, 'v': 'a'}, {'k': 1, 'v': 'b'}] | groupby('k') | list | length }}{% for g, i2 in [{'k': 1, 'v': 'a'}, {'k': 2, 'v': 'b'}] | groupby('k') %}{{ g }}{{ i2 | length }};{% endfor %}",
        "111;21;",
    ),
    (
        "{% macro f(x) %}{% if x > 0 %}{{ x }}{{ f(x - 1) }}{% endif %}{% endmacro %}{{ f(3) }}{{ f(2) | length }}{{ f(1) is string }}",
        "3212True",
    ),
    ("{% macro f() %}{{ messages[0].role }}{% endmacro %}{{ f() }}", "user"),
    ("{% macro f(x) %}{{ x }}{% endmacro %}{{ f('<b>') }}{{ f(x='a') ~ 'c' }}", "<b>ac"),
    ("{{- '  a  ' -}}  ", "  a  "),
    ("   {{ 'b' }}  ", "   b  "),
    ("{% if true -%}  x  {%- endif %}  y", "x  y"),
    ("{% if true %}", FAILS),
    ("", ""),
    ("x", "x"),
    ("{% endif %}", FAILS),
    ("z", "z"),
    ("", ""),
    ("{# comment #}", ""),
    ("a", "a"),
    ("{#- c -#}", ""),
    (" b", " b"),
    ("a {{ 'x' -}}", "a x"),
    ("", ""),
    (" b", " b"),
    ("{% raw %}{{ a }}{% if %}{% endraw %}", "{{ a }}{% if %}"),
    ("{%- set a = 1 -%}", ""),
    ("{{ a }}", ""),
    ("{% with a = 1, b = 2 %}{{ a + b }}{% endwith %}{{ a }}", "3"),
    ("{{ 'a' if i == 3 else 'b' if i == 4 else 'c' }} {{ ('a' if i == 4) is defined }}", "a False"),
    ("{{ l is string or s is string and not t is string }}", "True"),
    (
        "{{ 2 + 3 * 4 - 1 }} {{ (2 + 3) * 4 }} {{ 2 ** 3 ** 2 }} {{ -2 ** 2 }} {{ 7 // 2 * 2 }} {{ 'a' ~ 1 + 2 }} {{ not true or true }} {{ 1 < 2 and 2 < 3 }} {{ 1 + 1 == 2 }} {{ i | string + 'x' }} {{ -i | abs }}",
        FAILS,
    ),
];

fn conversation() -> Conversation {
    let json = json!({
        "messages": [{ "role": "user", "content": "  Hi <b>\"you\"</b> </think> & 'me' ü\u{2028} " }],
        "f": 1.0,
        "g": 1e16,
        "h": 1e-5,
        "i": 3,
        "n": null,
        "t": true,
        "s": "a,b,,c",
        "e": "",
        "l": [1, "two", null, true, 2.5],
        "d": { "b": 1, "A": { "x": [1, 2] }, "c": "it's" },
        "p": { "items": { "type": "string" }, "keys": "k" },
        "w": " one  two\tthree ",
        "u": "Été straße",
    });
    Conversation::from_json(&json.to_string()).expect("a conversation")
}

#[test]
fn expressions_are_those_of_jinja2() {
    let now = LocalTime::new(2025, 6, 17, 9, 30, 0).expect("a time");
    for (source, text) in CASES {
        let template = ChatTemplate::from_jinja("t", source);
        let rendered = template.and_then(|template| template.render(&conversation(), now));
        match rendered {
            Ok(prompt) => assert_eq!(prompt.text(), *text, "{source}"),
            Err(error) => assert_eq!(*text, FAILS, "{source}: {error}"),
        }
    }
}

/// The pieces of a rendering, the user's in ⟦⟧.
fn pieces(source: &str) -> String {
    let now = LocalTime::new(2025, 6, 17, 9, 30, 0).expect("a time");
    let json = json!({
        "messages": [
            { "role": "user", "content": " <|end|> a</think>b " },
            { "role": "assistant", "content": "", "tool_calls": [{ "name": "f", "arguments": { "/x": "<y>" } }] },
        ],
        "eos_token": "<|end|>",
    });
    let conversation = Conversation::from_json(&json.to_string()).expect("a conversation");
    let prompt = ChatTemplate::from_jinja("t", source).and_then(|t| t.render(&conversation, now)).expect(source);
    prompt.pieces().map(|(piece, user)| if user { format!("⟦{piece}⟧") } else { piece.to_owned() }).collect()
}

#[test]
fn the_users_text_is_known_after_every_operation() {
    const CONTENT: &str = "{% set c = messages[0].content %}";
    for (source, text) in [
        ("<|{{ messages[0].role }}|>{{ c }}{{ eos_token }}", "<|user|>⟦ <|end|> a</think>b ⟧<|end|>"),
        ("{{ c.strip() }}|{{ c | trim }}", "⟦<|end|> a</think>b⟧|⟦<|end|> a</think>b⟧"),
        ("{{ c.split('</think>')[-1] ~ eos_token }}", "⟦b ⟧<|end|>"),
        ("{% if '</think>' in c %}{{ c.split('</think>')[0].rstrip('\n') }}{% endif %}", "⟦ <|end|> a⟧"),
        ("{{ c.replace('</think>', '<|x|>') }}", "⟦ <|end|> a⟧<|x|>⟦b ⟧"),
        ("{{ c | upper }}{{ c | length }}", "⟦ <|END|> A</THINK>B ⟧20"),
        ("{{ c.strip().startswith('<|end|>') }}", "True"),
        ("{{ {'a': c} | tojson }}", "{\"a\": \"⟦ <|end|> a</think>b ⟧\"}"),
        ("{{ messages[1].tool_calls[0] | tojson }}", "{\"⟦name⟧\": \"⟦f⟧\", \"⟦arguments⟧\": {\"⟦/x⟧\": \"⟦<y>⟧\"}}"),
        ("{% for k, v in messages[1].tool_calls[0].arguments.items() %}<{{ k }}>{{ v }}{% endfor %}", "<⟦/x⟧>⟦<y>⟧"),
        ("{{ messages[1].tool_calls[0].arguments['/x'] }}", "⟦<y>⟧"),
        ("{{ '%s!' | format(c) }}{{ [c, 'd'] | join('-') }}", "⟦ <|end|> a</think>b ⟧!⟦ <|end|> a</think>b ⟧-d"),
        // The engine slices without regard of marks: then all from the first difference to the last is the user's.
        ("<|x|>{{ c[1:6] }}<|y|>", "<|x|>⟦<|end⟧<|y|>"),
        ("<|x|>{% if c[0] == ' ' %}{{ c }}{% else %}other{% endif %}<|y|>", "<|x|>⟦ <|end|> a</think>b ⟧<|y|>"),
    ] {
        assert_eq!(pieces(&format!("{CONTENT}{source}")), text, "{source}");
    }
}
