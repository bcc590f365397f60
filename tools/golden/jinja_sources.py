"""What `jinja.py` renders: the variables, expressions, and whole templates."""

CONTEXT = {
    "s": "Hello, World",
    "u": "Grüße ß İ ǆ 日本語 🦀 ½ ²",
    "ws": " \t a b \n",
    "lines": "one\ntwo\r\n\nthree\n",
    "html": "<a href=\"x\">Tom & 'Jerry'</a>",
    "long": "The quick brown fox jumps over the lazy dog and runs away",
    "n": 42,
    "neg": -7,
    "f": 3.14159,
    "half": 2.5,
    "big": 12345678901234567890,
    "t": True,
    "no": False,
    "none": None,
    "l": [3, 1, 2],
    "words": ["b", "A", "a", "C", "B"],
    "mixed": ["1", 2, 3.0, None, True],
    "empty": [],
    "d": {"b": 1, "a": 2, "C": 3},
    "nested": {"name": "f<é>", "items": [1, 2.5, True, None], "deep": {"x": {"y": "z"}}, "keys": "k"},
    "users": [
        {"name": "bob", "age": 30, "city": "Rome", "tags": ["x", "y"]},
        {"name": "Alice", "age": 25, "city": "rome"},
        {"name": "carol", "age": 30, "city": "Oslo", "tags": []},
    ],
    "pairs": [["a", 1], ["b", 2]],
    "json": {"q": "a\"b\\c\n\t\u0001/\u007f\u2028é🦀", "n": [1e100, 1e-7, 0.1, -0.0, 1.0, 10000000000000000000], "e": {}, "l": []},
    "chat": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi <there>"},
        {"role": "assistant", "content": None, "tool_calls": [
            {"type": "function", "id": "c1", "function": {"name": "f", "arguments": {"x": 1, "y": [True, None]}}}]},
        {"role": "tool", "content": "42"},
        {"role": "assistant", "content": "<think>\nhm\n</think>\n\nIt is 42."},
    ],
    "functions": [{"type": "function", "function": {
        "name": "f", "description": "Does \"f\"", "parameters": {"type": "object", "properties": {"x": {"type": "integer"}}}}}],
}

# Python's own printing, operators, literals
EXPRESSIONS = r"""
none
t
no
n
f
big
l
d
mixed
nested
pairs
json
chat
1.0
1e100
1e16
1e15
123456789012345678.0
1e-5
0.0001
0.1 + 0.2
-0.0
1e22
1.5e300 * 1e10
2 ** 10
2 ** 0.5
2 ** -1
2 ** 100
-2 ** 2
7 / 2
6 / 2
7 // 2
-7 // 2
7.5 // 2
7 % 3
-7 % 3
7 % -3
7.5 % 2
1 / 0
1 // 0
1 % 0
1 + 2.0
1 + true
true + true
'a' + 'b'
'a' + 1
1 + 'a'
'a' ~ 1 ~ none ~ true ~ 1.0 ~ [1, 'x']
'ab' * 3
3 * 'ab'
'ab' * -1
'ab' * 0
[1, 2] * 2
[1] + [2]
[1] + (2,)
(1,) + (2,)
{} + {}
'%s' % 'x'
'%s and %s' % ('x', 1)
'%d items, %05.2f, %x, %o, %e, %g' % (3, 2.5, 255, 8, 12345.678, 0.00001)
'%-5s|%5s|%+d|% d|%05d' % ('a', 'b', 3, 4, -5)
'%r %a %c %%' % ('x', 'é', 'z')
'%(name)s is %(age)d' % {'name': 'bob', 'age': 3}
'%s' % none
'%s' % [1, 'a']
'%s' % (none,)
'%.3s' % 'abcdef'
'%X %#x %#o' % (255, 255, 8)
'%d' % 3.9
'%i' % true
'%s %s' % 'x'
'%d' % 'x'
'%s' % ('x', 'y')
'%z' % 1
'%.10g' % 3.14159
'%G' % 1e-10
s % ()
'%*d' % (5, 3)
'100%' ~ ' sure'
n % 5
f % 2
1 < 2
1 < 2 < 3
3 > 2 > 2
1 == 1.0
1 == true
'1' == 1
none == false
none == none
[1, 2] == [1, 2.0]
[1] == (1,)
(1, 2) == (1, 2)
{'a': 1} == {'a': 1.0}
'a' < 'b'
'B' < 'a'
1 < 'a'
none < 1
[1, 2] < [1, 3]
1 in [1, 2]
'a' in 'abc'
1 in 'abc'
'a' in {'a': 1}
'a' in none
'a' in undefined_name
3 not in [1, 2]
true and 'x'
'' or 'y'
0 or none
none and 1
not ''
not [0]
not none
'a' if true else 'b'
'a' if false
('a' if false) is undefined
1 if [] else 2
'\n\t\\\'"'
"it's" ~ 'a "b"'
'\x41\u00e9'
'a' 'b'
0x1F
0b101
0o17
1_000
1_000.5
()
(1,)
(1, 'a')
[none, true, 1.5, 'x', "it's", 'a"b', '\n']
{'a': [1, {'b': (1, 2)}]}
{1: 'a', none: 'b', true: 'c', 1.5: 'd'}
{'a': 1, 'a': 2}
{}
True
False
None
true
-n
+n
-f
not n
-'a'
-true
""".strip().splitlines()

# Undefined, attributes, items, slices
EXPRESSIONS += r"""
missing
missing is defined
missing is undefined
missing.attr
missing['x']
missing + 1
missing ~ 'x'
missing == 1
missing == missing2
missing | default('x')
missing | length
missing | list
missing | upper
missing | int
missing | tojson
missing()
'%s' % missing
[missing]
d.missing
d.missing.more
d['missing']
d['missing']['more']
d.missing is defined
d.a
d['a']
d.get('a')
d.get('zz')
d.get('zz', 5)
d.get
nested.keys
nested['keys']
nested.items
nested.deep.x.y
nested['deep']['x']['y']
nested.name.missing
s.missing
s.missing is defined
n.missing
none.missing
none.missing.more
none['x']
l[0]
l[-1]
l[10]
l[10] is defined
l['x']
l.0
l['0']
s[0]
s[-1]
s[100]
s['x']
u[2]
n[0]
l[1:]
l[:-1]
l[::-1]
l[-2:]
l[5:10]
l[::2]
s[1:5]
s[::-1]
s[-3:]
u[1:4]
u[::-1]
s[:0]
(1, 2, 3)[1:]
(1, 2, 3)[::-1]
s[::0]
missing[1:]
none[1:]
d[1:]
users[0].name
users[0]['tags'][1]
users[-1].tags
users[0].get('tags', [])
l | first | string ~ 'x'
s.upper
s.upper is callable
range is callable
d.get is callable
1 is callable
cycler is callable
loop is defined
self is defined
caller is defined
varargs is defined
""".strip().splitlines()

# Methods of str
EXPRESSIONS += r"""
s.capitalize()
'éa ÉB'.capitalize()
u.casefold()
s.center(20)
s.center(20, '*')
s.center(3)
'ab'.center(5, '*')
'abc'.center(6, '*')
s.count('l')
s.count('l', 4)
s.count('l', 0, 4)
s.count('')
s.endswith('World')
s.endswith(('x', 'd'))
s.endswith('o', 0, 5)
'a\tbc\td'.expandtabs()
'a\tbc'.expandtabs(4)
s.find('o')
s.find('o', 5)
s.find('zz')
u.find('日')
s.index('o')
s.index('zz')
s.rindex('o')
s.rfind('o')
s.rfind('zz')
'{} and {}'.format('a', 1)
'{0} {1} {0}'.format('a', 'b')
'{x} {y}'.format(x=1, y='z')
'{:>5}|{:<5}|{:^5}|{:05d}|{:.2f}'.format('a', 'b', 'c', 42, 3.14159)
'{:,}'.format(1234567)
'{:x} {:b} {:e} {:%}'.format(255, 5, 1234.5, 0.25)
'{a[b]} {c.x}'.format(a={'b': 1}, c={'x': 2})
'{!r:>6}'.format('a')
'{{}}'.format()
'{}'.format()
'{:d}'.format('x')
'abc1'.isalnum()
'abc 1'.isalnum()
''.isalnum()
'abcé'.isalpha()
'ab1'.isalpha()
'abc'.isascii()
u.isascii()
''.isascii()
'12'.isdecimal()
'²'.isdecimal()
'12²'.isdigit()
'½'.isdigit()
'١٢'.isdigit()
'½'.isnumeric()
'一'.isnumeric()
'12'.isnumeric()
''.isdigit()
'a_1'.isidentifier()
'1a'.isidentifier()
'abc1'.islower()
'Abc'.islower()
'ABC1'.isupper()
'12'.isupper()
' \t\n'.isspace()
''.isspace()
'\x1c'.isspace()
'Hello World'.istitle()
'Hello world'.istitle()
'abc'.isprintable()
'a\n'.isprintable()
', '.join(['a', 'b'])
', '.join('abc')
', '.join([1, 2])
','.join([])
','.join(d)
'ab'.ljust(5) ~ '|'
'ab'.ljust(5, '.')
'ab'.rjust(5)
'ab'.rjust(5, '0')
'ab'.rjust(1)
s.lower()
u.lower()
u.upper()
'ǆ'.title()
ws.strip()
ws.lstrip()
ws.rstrip()
'xxaxx'.strip('x')
'xyaxy'.lstrip('yx')
'xyaxy'.rstrip('yx')
'xax'.strip('')
'xax'.strip(none)
'\u00a0a\u200b\u3000'.strip()
'\x1ca\x1f'.strip()
'a-b-c'.partition('-')
'abc'.partition('-')
'a-b-c'.rpartition('-')
'abc'.rpartition('-')
'abc'.partition('')
'TestHook'.removeprefix('Test')
'TestHook'.removeprefix('x')
'TestHook'.removesuffix('Hook')
s.replace('l', 'L')
s.replace('l', 'L', 1)
s.replace('l', '')
'abc'.replace('', '-')
s.replace('l', 'L', -1)
s.replace('l', 'L', 0)
s.replace(1, 2)
'a b  c'.split()
' a b '.split()
'a,b,c'.split(',')
'a,b,c'.split(',', 1)
'a,,b'.split(',')
''.split(',')
''.split()
'a b c'.split(none, 1)
'a b c'.split(maxsplit=1)
'a--b'.split('--')
'a,b'.split('')
'a,b,c'.split(sep=',', maxsplit=1)
'a,b,c'.rsplit(',', 1)
'a b c'.rsplit()
'a b c'.rsplit(none, 1)
'a,b,c'.rsplit(',')
lines.splitlines()
lines.splitlines(true)
lines.splitlines(keepends=true)
'a\x0bb\x0cc\x1cd\x85e\u2028f'.splitlines()
''.splitlines()
s.startswith('Hello')
s.startswith(('x', 'H'))
s.startswith('World', 7)
s.startswith('')
s.startswith(1)
s.swapcase()
'ßa'.swapcase()
"they're bill's".title()
'hello wORLD 3rd'.title()
'abc'.translate({97: 'x'})
'abc'.maketrans('a', 'b')
'42'.zfill(5)
'-42'.zfill(5)
'+4'.zfill(4)
'abcdef'.zfill(3)
s.encode('utf-8')
s.format_map({'a': 1})
'{a}'.format_map({'a': 1})
s.nosuchmethod()
s.upper(1)
s.split(',', 1, 2)
'<think>a</think>b'.split('</think>')[-1].lstrip('\n')
'<think>\nhm\n</think>\n\nx'.split('</think>')[0].rstrip('\n').split('<think>')[-1].lstrip('\n')
""".strip().splitlines()

# Methods of list, tuple, dict
EXPRESSIONS += r"""
l.count(1)
l.index(2)
l.index(9)
l.copy()
l.append(4)
l.pop()
l.sort()
l.reverse()
l.insert(0, 1)
l.extend([1])
l.remove(1)
l.clear()
(1, 2, 1).count(1)
(1, 2).index(2)
d.keys()
d.values()
d.items()
d.keys() | list
d.values() | list
d.items() | list
d.items() | first
d.copy()
d.update({'x': 1})
d.pop('a')
d.popitem()
d.setdefault('x', 1)
d.clear()
d.nosuch()
l.nosuch()
n.bit_length()
f.is_integer()
n.nosuch()
none.nosuch()
nested.items()
nested.keys()
d.keys() | length
'a' in d.keys()
2 in d.values()
d.fromkeys(['a'])
""".strip().splitlines()

# Filters
EXPRESSIONS += r"""
-5 | abs
neg | abs
f | abs
'a' | abs
d | attr('a')
d | attr('get')
s | attr('missing')
s | attr('upper')
l | batch(2) | list
[1, 2, 3, 4, 5] | batch(2, 'x') | list
s | lower | capitalize
'hELLO wORLD' | capitalize
s | center(20)
'ab' | center(5)
s | center
l | count
missing | d('x')
none | d('x')
none | default('x')
none | default('x', true)
'' | default('x', true)
'' | default('x', boolean=true)
0 | default('x', default_value='y')
missing | default
d | dictsort
d | dictsort(true)
d | dictsort(false, 'value')
d | dictsort(by='value', reverse=true)
d | dictsort(case_sensitive=true)
d | dictsort(by='zz')
html | e
html | escape
html | escape | escape
html | e | upper
html | forceescape
html | e | forceescape
(html | e) ~ '<'
(html | e) + '<'
(html | e) == html
n | e
none | e
1000 | filesizeformat
1000000 | filesizeformat
1024 | filesizeformat(true)
1 | filesizeformat
13 | filesizeformat
1500000000 | filesizeformat(binary=true)
'123456' | filesizeformat
l | first
empty | first
(empty | first) is undefined
s | first
d | first
missing | first
'3.14' | float
'x' | float
'x' | float(1.5)
n | float
none | float
true | float
' 2.5 ' | float
'1e3' | float
'inf' | float
'nan' | float
'%s - %s' | format('a', 1)
'%(x)s' | format(x=1)
'%s' | format
'%d' | format('x')
users | groupby('city')
users | groupby('city', case_sensitive=true)
users | groupby('age') | map('first') | list
users | groupby('age') | map(attribute='grouper') | list
users | groupby('age') | map(attribute='list') | map('length') | list
users | groupby('zz', default='none') | map('first') | list
'a\nb\n\nc' | indent
'a\nb\n\nc' | indent(2, true)
'a\nb\n\nc' | indent(2, true, true)
'a\nb\n\nc' | indent(width=2, first=false, blank=true)
'a\nb' | indent('> ')
'a\nb\n' | indent(2)
'a\r\nb' | indent(2)
'a' | indent(2, first=true)
'' | indent(2, true)
'42' | int
'42.7' | int
'x' | int
'x' | int(5)
'0x1F' | int(base=16)
'1F' | int(0, 16)
'0b11' | int(0, 2)
'077' | int(0, 8)
' 12 ' | int
'1_000' | int
3.99 | int
-3.99 | int
true | int
none | int
1e20 | int
'12345678901234567890123' | int
d | items | list
missing | items | list
none | items
l | items
l | join
l | join(', ')
l | join(d=', ')
users | join(', ', attribute='name')
'abc' | join('-')
[1, none, true, 1.5, 'x'] | join('|')
missing | join(',')
n | join
l | last
s | last
empty | last
d | last
l | length
s | length
u | length
d | length
n | length
none | length
'abc' | list
d | list
(1, 2) | list
range(3) | list
n | list
missing | list | length
s | lower
u | lower
n | lower
none | upper
[1.5, true] | lower
users | map(attribute='name') | list
users | map(attribute='tags') | list
users | map(attribute='tags', default='none') | list
users | map(attribute='tags.0', default='-') | list
users | map(attribute='age') | sum
words | map('upper') | list
words | map('replace', 'a', 'x') | list
words | map('nosuch') | list
words | map | list
l | map('string') | join('+')
words | map('upper')
l | max
words | max
words | max(case_sensitive=true)
users | max(attribute='age')
empty | max
['a', 1] | max
l | min
words | min
words | min(case_sensitive=true)
users | min(attribute='age') | attr('name')
(users | min(attribute='age')).name
empty | min
nested | pprint
s | pprint
l | pprint
none | pprint
long | pprint
chat | pprint
l | reject('odd') | list
l | reject('gt', 1) | list
[0, 1, '', none] | reject | list
users | rejectattr('tags') | map(attribute='name') | list
users | rejectattr('age', 'eq', 30) | map(attribute='name') | list
s | replace('l', 'L')
s | replace('l', 'L', 2)
s | replace('l', 'L', count=1)
n | replace('4', 'x')
html | e | replace('<', '>')
s | replace('', '-')
l | reverse | list
s | reverse
l | reverse
u | reverse
n | reverse
2.5 | round
3.5 | round
-2.5 | round
2.567 | round(2)
2.567 | round(2, 'floor')
2.561 | round(2, 'ceil')
2.4 | round(0, 'ceil')
2.4 | round(method='floor')
1234.5 | round(-2)
n | round
n | round(1)
2.5 | round | int
2.675 | round(2)
2.5 | round(0, 'nosuch')
'a' | round
html | safe
l | select('odd') | list
l | select('gt', 1) | list
l | select('in', [1, 2]) | list
[0, 1, '', 'a', none] | select | list
l | select('nosuch') | list
words | select('equalto', 'a') | list
words | select('==', 'a') | list
l | select('odd')
users | selectattr('tags') | map(attribute='name') | list
users | selectattr('tags', 'defined') | map(attribute='name') | list
users | selectattr('age', 'equalto', 30) | map(attribute='name') | list
users | selectattr('age', '>', 25) | list | length
users | selectattr('name', 'in', ['bob']) | map(attribute='name') | join
users | selectattr('tags', 'undefined') | map(attribute='name') | first
users | selectattr('nosuch', 'equalto', none) | list
chat | selectattr('role', 'equalto', 'user') | list | length
chat | selectattr('role', 'ne', 'user') | map(attribute='role') | join(',')
chat | map(attribute='role') | unique | list
[1, 2, 3, 4, 5] | slice(2) | list
[1, 2, 3, 4, 5] | slice(3, 'x') | list
[1, 2, 3, 4, 5] | slice(3) | map('length') | list
l | sort
l | sort(reverse=true)
l | sort(true)
words | sort
words | sort(case_sensitive=true)
words | sort(false, true)
users | sort(attribute='name') | map(attribute='name') | list
users | sort(attribute='age,name') | map(attribute='name') | list
users | sort(attribute='age', reverse=true) | map(attribute='name') | list
['a', 1] | sort
d | sort
'cab' | sort
mixed | sort
n | string ~ 'x'
l | string
none | string
true | string | length
html | striptags
'<!-- x --><b>a</b>  b\n c' | striptags
'a &lt; b' | striptags
l | sum
[1.5, 2] | sum
users | sum(attribute='age')
users | sum('age')
l | sum(start=10)
['a'] | sum
empty | sum
s | title
"they're bill's friends" | title
'hello-world foo_bar (baz)' | title
'o\'neil 3rd éa' | title
{'a': 1} | tojson
nested | tojson
json | tojson
json | tojson(ensure_ascii=true)
json | tojson(true)
d | tojson(sort_keys=true)
d | tojson(separators=(',', ':'))
nested | tojson(separators=(',', ':'), sort_keys=true)
nested | tojson(indent=2)
nested | tojson(indent=0)
nested | tojson(indent='\t')
nested | tojson(indent=2, separators=(', ', ' = '))
nested | tojson(indent=4, ensure_ascii=true, sort_keys=true)
[] | tojson(indent=2)
{} | tojson(indent=2)
[[], {}, [1]] | tojson(indent=1)
html | tojson
u | tojson
none | tojson
true | tojson
f | tojson
1.0 | tojson
1e100 | tojson
1e16 | tojson
1e-7 | tojson
big | tojson
(1, 2) | tojson
{1: 2, none: 3, true: 4, 1.5: 5} | tojson
'nan' | float | tojson
-('inf' | float) | tojson
range(3) | tojson
d.keys() | tojson
d.items() | list | tojson
words | map('upper') | tojson
html | e | tojson
functions | tojson
functions | tojson(indent=4)
chat | tojson
l | tojson(nosuch=1)
ws | trim
'xxaxx' | trim('x')
'xxaxx' | trim(chars='x')
n | trim
none | trim
long | truncate(20)
long | truncate(20, true)
long | truncate(20, true, '')
long | truncate(20, end='>>')
long | truncate(50)
long | truncate(55, leeway=0)
long | truncate
long | truncate(10, killwords=true, end='..', leeway=0)
'a' | truncate(2)
'foo bar baz qux' | truncate(9)
'foo bar baz qux' | truncate(11, leeway=0)
words | unique | list
words | unique(case_sensitive=true) | list
users | unique(attribute='age') | map(attribute='name') | list
[1, 1.0, true, 2] | unique | list
words | unique
s | upper
u | upper
'a b/c?d=é&f' | urlencode
{'a': 1, 'b c': 'd&'} | urlencode
[['a', 1], ['b', 'c']] | urlencode
'see http://example.com/x and www.foo.org' | urlize
'x' | urlize
long | wordcount
'a-b c_d, it\'s' | wordcount
'' | wordcount
long | wordwrap(20)
long | wordwrap(10, true, '|')
'abcdefghijkl' | wordwrap(5)
'abcdefghijkl mno' | wordwrap(5, false)
'a\nb c' | wordwrap(3)
{'class': 'a', 'id': none, 'x': 'y&z'} | xmlattr
{'class': 'a'} | xmlattr(false)
s | nosuch
s | upper | nosuch
s|upper|lower|title
""".strip().splitlines()

# Tests
EXPRESSIONS += r"""
t is boolean
1 is boolean
none is boolean
upper is callable
n is defined
10 is divisibleby 5
10 is divisibleby(3)
10 is divisibleby 0
1 is eq 1
1 is eq(1.0)
'a' is equalto 'a'
1 is == 1
1 is != 2
1 is < 2
1 is <= 1
2 is > 1
2 is >= 2
(html | e) is escaped
html is escaped
2 is even
3 is even
'a' is even
no is false
0 is false
'upper' is filter
'nosuch' is filter
f is float
n is float
2 is ge 2
2 is gt 1
2 is greaterthan 1
1 is in [1, 2]
'a' is in 'abc'
n is integer
t is integer
f is integer
l is iterable
s is iterable
n is iterable
d is iterable
missing is iterable
none is iterable
1 is le 1
1 is lt 2
1 is lessthan 2
'abc' is lower
'aBc' is lower
'12' is lower
d is mapping
l is mapping
s is mapping
1 is ne 2
none is none
missing is none
0 is none
n is number
f is number
t is number
'1' is number
3 is odd
2 is odd
none is sameas none
1 is sameas 1.0
t is sameas true
l is sameas l
l is sequence
s is sequence
d is sequence
n is sequence
none is sequence
missing is sequence
(1, 2) is sequence
range(3) is sequence
d.items() is sequence
(l | map('string')) is sequence
(l | map('string')) is iterable
s is string
n is string
(html | e) is string
'defined' is test
'nosuch' is test
t is true
1 is true
n is undefined
'ABC' is upper
'ABc' is upper
n is not defined
n is not none
s is not string
s is nosuch
1 is divisibleby
not n is defined
n is defined and s is string
l is not mapping and l is iterable
[] is sequence
{} is mapping
'' is string
s is string and s is not mapping
chat[2].content is string
chat[2].content is none
chat[2].tool_calls is iterable
chat[0].tool_calls is defined
""".strip().splitlines()

# Globals
EXPRESSIONS += r"""
range(5) | list
range(2, 5) | list
range(5, 0, -2) | list
range(0) | list
range(3)
range(1.5)
range(100001) | length
dict(a=1, b='x')
dict(d, z=1)
dict([['a', 1]])
dict()
namespace(a=1).a
namespace({'a': 2}).a
namespace(a=1).b is defined
joiner(', ')
cycler('a', 'b').next()
cycler('a', 'b').current
raise_exception('stop here')
raise_exception("it's <b>")
nosuchfunction()
nosuchfunction(1) is defined
strftime_now('%%')
strftime_now('')
strftime_now('x') ~ 'y'
len(l)
str(n)
int('1')
zip(l, l)
enumerate(l)
""".strip().splitlines()

TEMPLATES = [
    # Whitespace control
    "a\n{% if true %}\nb\n{% endif %}\nc\n",
    "a\n  {% if true %}\n  b\n  {% endif %}\nc",
    "a\n  {%- if true -%}\n  b\n  {%- endif -%}\nc",
    "a  {%+ if true +%}\n  b{% endif %}",
    "  {{ 1 }}\n  {{- 2 -}}\n  {{ 3 }}\n\n",
    "a {# comment #}\nb\n{#- c -#}\nd",
    "  {# c #}\nx",
    "x\n",
    "x\n\n",
    "x\r\n{% if true %}\r\ny\r\n{% endif %}\r\nz",
    "a\rb",
    "{% raw %}{{ x }} {% if %}{% endraw %}",
    "{% raw -%}  {{ x }}  {%- endraw %}!",
    "a {%- raw %} b {% endraw -%} c",
    "{{ '{{' }} {{ '%}' }} {{ \"}}\" }}",
    "{{ '{%' }}{% set x = '%}' %}{{ x }}",
    "#} %} }}",
    "{ % { { }",
    "{{ 'a' -}}   \n  b",
    "\t{% if true %}\tx\t{% endif %}\t\ny",
    "{%if true%}x{%endif%}",
    "{{s}}{{n}}",
    "",
    "\n",
    "{% if true %}\n\n\nx{% endif %}",
    # for
    "{% for x in l %}{{ loop.index }}/{{ loop.index0 }}/{{ loop.revindex }}/{{ loop.revindex0 }}/{{ loop.first }}/{{ loop.last }}/{{ loop.length }}/{{ loop.depth }}/{{ loop.depth0 }};{% endfor %}",
    "{% for x in l %}{{ loop.previtem }}<{{ x }}>{{ loop.nextitem }};{% endfor %}",
    "{% for x in l %}{{ loop.previtem is defined }}{{ loop.nextitem is defined }};{% endfor %}",
    "{% for x in l %}{{ loop.cycle('a', 'b') }}{% endfor %}",
    "{% for x in [1, 1, 2] %}{{ loop.changed(x) }};{% endfor %}",
    "{% for x in empty %}a{% else %}none{% endfor %}",
    "{% for x in l if x > 1 %}{{ x }}{{ loop.length }}{% endfor %}",
    "{% for x in l if x > 5 %}{{ x }}{% else %}nothing{% endfor %}",
    "{% for k, v in d.items() %}{{ k }}={{ v }};{% endfor %}",
    "{% for k, v in d | items %}{{ k }}={{ v }};{% endfor %}",
    "{% for k in d %}{{ k }}{% endfor %}",
    "{% for k, v in d | dictsort %}{{ k }}={{ v }};{% endfor %}",
    "{% for a, b in pairs %}{{ a }}{{ b }}{% endfor %}",
    "{% for a, b in l %}{{ a }}{% endfor %}",
    "{% for (a, b), c in [((1, 2), 3)] %}{{ a }}{{ b }}{{ c }}{% endfor %}",
    "{% for c in s %}{{ c }}.{% endfor %}",
    "{% for x in none %}{% endfor %}",
    "{% for x in missing %}x{% else %}empty{% endfor %}",
    "{% for x in 5 %}{% endfor %}",
    "{% for x in l %}{% if x == 1 %}{% continue %}{% endif %}{{ x }}{% endfor %}",
    "{% for x in l %}{% if x == 1 %}{% break %}{% endif %}{{ x }}{% endfor %}",
    "{% for x in l %}{% for y in l %}{{ loop.depth }}{{ x * y }} {% endfor %}{% endfor %}",
    "{% for x in l %}{% set outer = loop %}{% for y in l %}{{ outer.index }}{{ loop.index }} {% endfor %}{% endfor %}",
    "{% for item in [{'n': 1, 'c': [{'n': 2, 'c': []}]}] recursive %}{{ item.n }}[{{ loop(item.c) }}]{% endfor %}",
    "{% for x in range(3) %}{{ x }}{% endfor %}{{ x is defined }}",
    "{% set x = 9 %}{% for x in l %}{{ x }}{% endfor %}{{ x }}",
    "{% set x = 0 %}{% for y in l %}{% set x = x + y %}{% endfor %}{{ x }}",
    "{% set ns = namespace(x=0, found=false) %}{% for y in l %}{% set ns.x = ns.x + y %}{% set ns.found = true %}{% endfor %}{{ ns.x }}{{ ns.found }}",
    "{% for m in chat %}{{ loop.index0 % 2 == 0 }}{{ m['role'] }} {% endfor %}",
    "{% for m in chat[::-1] %}{{ m.role }} {% endfor %}",
    "{% for m in chat[1:] %}{{ m.role }}{{ ' ' if not loop.last }}{% endfor %}",
    "{% for m in chat | reverse %}{{ m.role }} {% endfor %}",
    "{{ loop }}",
    "{% for x in l %}{{ loop }}{% endfor %}",
    "{% for x in l | sort %}{{ x }}{{ ', ' if not loop.last else '.' }}{% endfor %}",
    "{% for i in range(0, chat | length, 2) %}{{ chat[i].role }} {% endfor %}",
    "{% for x in words | map('upper') %}{{ loop.length }}{{ x }}{% endfor %}",
    "{% for x in l %}{{ x }}{% endfor %}{{ loop is defined }}",
    # set
    "{% set a = 1 %}{{ a }}",
    "{% set a, b = 1, 2 %}{{ a }}{{ b }}",
    "{% set a = [1, 2] %}{{ a }}{% set a = a + [3] %}{{ a }}",
    "{% set a %}x{{ n }}y{% endset %}[{{ a }}]",
    "{% set a | upper %}x{% endset %}{{ a }}",
    "{% set a %}  \n x {% endset %}[{{ a }}]{{ a | length }}",
    "{% set a %}<{% endset %}{{ a ~ '>' }}{{ a | e }}",
    "{% set a = 1 %}{% if true %}{% set a = 2 %}{% endif %}{{ a }}",
    "{% set a.b = 1 %}{{ a }}",
    "{% set d.x = 1 %}{{ d }}",
    "{% set ns = namespace() %}{% set ns.a = 1 %}{{ ns.a }}{{ ns.b }}",
    "{% set ns = namespace(a=[]) %}{% set ns.a = ns.a + ['x'] %}{{ ns.a }}",
    "{% set ns = namespace(a=1) %}{% set ns['a'] = 2 %}{{ ns.a }}",
    "{% set ns = namespace(a=1) %}{{ ns['a'] }}",
    "{% set ns = namespace(a=1) %}{{ ns }}",
    "{% with a = 1, b = 2 %}{{ a + b }}{% endwith %}{{ a is defined }}",
    "{% with %}{% set z = 1 %}{{ z }}{% endwith %}{{ z is defined }}",
    "{% with a = 1 %}{% with a = 2, b = a %}{{ a }}{{ b }}{% endwith %}{% endwith %}",
    "{% set true_value = true %}{{ true_value }}",
    "{% set x = none %}{{ x }}{{ x is none }}",
    "{% set l = l + [9] %}{{ l }}",
    "{% set a = b = 1 %}",
    "{% set ns = namespace(l=l) %}{% set _ = ns.l.append(1) %}{{ ns.l }}",
    # if
    "{% if missing %}a{% elif none %}b{% elif [] %}c{% elif {} %}d{% elif 0.0 %}e{% elif '' %}f{% else %}g{% endif %}",
    "{% if '0' %}a{% endif %}{% if [0] %}b{% endif %}{% if -1 %}c{% endif %}",
    "{% if 1 %}{% if 0 %}a{% else %}b{% endif %}{% endif %}",
    "{% if x %}",
    "{% endif %}",
    "{% if false %}{{ 1 / 0 }}{% endif %}ok",
    "{% if false %}{{ s | nosuch }}{% endif %}ok",
    "{% if false %}{{ s is nosuch }}{% endif %}ok",
    "{% if false %}{{ nosuch() }}{{ s.nosuch() }}{% endif %}ok",
    "{{ (s | nosuch) if false else 'ok' }}",
    "{{ 'ok' if true else nosuch() }}",
    # macros
    "{% macro m(a, b=2) %}{{ a }}-{{ b }}{% endmacro %}{{ m(1) }} {{ m(1, 3) }} {{ m(b=5, a=4) }}",
    "{% macro m(a) %}{{ a }}{% endmacro %}{{ m() }}|{{ m(missing) }}",
    "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(1, 2) }}",
    "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(1, zz=2) }}",
    "{% macro m() %}{{ varargs }}{{ kwargs }}{% endmacro %}{{ m(1, 2, x=3) }}",
    "{% macro m() %}{{ caller() }}!{% endmacro %}{% call m() %}x{% endcall %}",
    "{% macro m(l) %}{% for x in l %}{{ caller(x) }}{% endfor %}{% endmacro %}{% call(x) m(l) %}<{{ x }}>{% endcall %}",
    "{% macro m() %}{{ caller is defined }}{% endmacro %}{{ m() }}",
    "{% macro m(x) %}{{ x }}{% if x > 0 %}{{ m(x - 1) }}{% endif %}{% endmacro %}{{ m(3) }}",
    "{% macro m(a, b) %}{% endmacro %}{{ m.name }}{{ m.arguments }}",
    "{% set g = 5 %}{% macro m() %}{{ g }}{{ s }}{% endmacro %}{{ m() }}",
    "{% macro m(a=n) %}{{ a }}{% endmacro %}{{ m() }}",
    "{% macro m(a, b=a) %}{{ b }}{% endmacro %}{{ m(1) }}",
    "{% macro m() %}  x  {% endmacro %}[{{ m() }}][{{ m() | trim }}]",
    "{%- macro m() -%}  x  {%- endmacro -%}  [{{ m() }}]",
    "{% macro m() %}<{% endmacro %}{{ m() | e }}{{ m() is string }}{{ m() | length }}",
    "{{ m() }}{% macro m() %}later{% endmacro %}",
    "{% if true %}{% macro m() %}x{% endmacro %}{% endif %}{{ m() }}",
    "{% for x in l %}{% macro m() %}{{ x }}{% endmacro %}{{ m() }}{% endfor %}",
    "{% macro m(x) %}{% set x = x + 1 %}{{ x }}{% endmacro %}{{ m(1) }}{{ x is defined }}",
    "{% macro a() %}{{ b() }}{% endmacro %}{% macro b() %}B{% endmacro %}{{ a() }}",
    "{% macro m(x) %}{{ x | tojson }}{% endmacro %}{{ m({'a': 1}) }}{{ m([1]) }}",
    "{% macro m() %}{% endmacro %}{{ m }}",
    # blocks, filters, other tags
    "{% filter upper %}abc{{ s }}{% endfilter %}",
    "{% filter replace('a', 'b') | upper %}aa{% endfilter %}",
    "{% filter trim %}  x  {% endfilter %}",
    "{% filter nosuch %}x{% endfilter %}",
    "{% block b %}x{{ n }}{% endblock %}",
    "{% block b %}x{% endblock b %}{{ self.b() }}",
    "{% generation %}a{% endgeneration %}",
    "{%- generation -%}  a  {%- endgeneration -%}  b",
    "{% generation %}\n  {{ s }}\n{% endgeneration %}\n",
    "{%generation%}x{%endgeneration%}",
    "{% for m in chat %}{% if m.role == 'assistant' %}{% generation %}{{ m.content }}{% endgeneration %}{% endif %}{% endfor %}",
    "{% set x = 1 %}{% generation %}{% set x = 2 %}{{ x }}{% endgeneration %}{{ x }}",
    "{% generation %}a",
    "{% raw %}{% generation %}{% endraw %}",
    "{{ '{% generation %}' }}",
    "{# {% generation %} #}x",
    "{% autoescape true %}{{ html }}{% endautoescape %}",
    "{% do l.append(1) %}",
    "{% include 'x' %}",
    "{% import 'x' as y %}",
    "{% from 'x' import y %}",
    "{% extends 'x' %}",
    "{% trans %}x{% endtrans %}",
    "{% debug %}",
    "{% nosuchtag %}",
    "{%}",
    "{%%}",
    "{{}}",
    "{{",
    "{%",
    "{#",
    "{{ 'a",
    "{{ (1 }}",
    "{{ 1 2 }}",
    "{{ a..b }}",
    "{% for %}",
    "{% for x in %}{% endfor %}",
    "{% set %}",
    "{% if %}{% endif %}",
    "{{ 1 if }}",
    "{{ x | }}",
    "{{ x is }}",
    "{% endfor %}",
    "{% for x in l %}{% endif %}",
    "{% block a %}{% endblock %}{% block a %}{% endblock %}",
    "{% break %}",
    "{{ caller() }}",
    "{{ super() }}",
    # cycler, joiner
    "{% set c = cycler('a', 'b') %}{{ c.next() }}{{ c.next() }}{{ c.next() }}{{ c.current }}{% set _ = c.reset() %}{{ c.current }}",
    "{% set j = joiner(', ') %}{% for x in l %}{{ j() }}{{ x }}{% endfor %}",
    "{% set j = joiner() %}{{ j() }}a{{ j() }}b",
    "{% for a, b in users | groupby('age') %}{{ a }}:{{ b | map(attribute='name') | join('+') }};{% endfor %}",
    "{% for g in users | groupby('age') %}{{ g.grouper }}:{{ g.list | length }};{% endfor %}",
    # Template idioms
    "{{ chat[0]['content'] if chat[0]['role'] == 'system' else 'none' }}",
    "{% if functions is defined and functions %}{{ functions | length }}{% endif %}",
    "{% if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}{% endif %}{{ add_generation_prompt }}",
    "{% for m in chat %}{% if m.content is string %}{{ m.content | trim }}{% elif m.tool_calls %}{% for c in m.tool_calls %}{{ c.function.name }}({{ c.function.arguments | tojson }}){% endfor %}{% endif %}\n{% endfor %}",
    "{% for m in chat %}{{ m.get('content', '') or '' }};{% endfor %}",
    "{% for m in chat %}{{ m.role ~ ': ' ~ m.content ~ '\\n' }}{% endfor %}",
    "{% for m in chat %}{{ '<|' + m['role'] + '|>' }}{% endfor %}",
    "{% set content = chat[-1].content %}{% if '</think>' in content %}{% set content = content.split('</think>')[-1].lstrip('\\n') %}{% endif %}{{ content }}",
    "{% for name, value in chat[2].tool_calls[0].function.arguments.items() %}{{ name }}: {{ value | tojson if value is not string else value }};{% endfor %}",
    "{% if chat[0].role == 'system' %}{% set sys = chat[0].content %}{% set rest = chat[1:] %}{% else %}{% set rest = chat %}{% endif %}{{ sys }}|{{ rest | length }}",
    "{% if (chat[1]['role'] == 'user') != (1 % 2 == 0) %}{{ raise_exception('Conversation roles must alternate') }}{% endif %}",
    "{{ bos_token }}{{ eos_token }}",
    "{%- for key, value in nested.items() if key != 'name' %}{{ key }}{% if not loop.last %},{% endif %}{%- endfor %}",
    "{%- set ns = namespace(last=-1) -%}{%- for m in chat -%}{%- if m.role == 'user' -%}{%- set ns.last = loop.index0 -%}{%- endif -%}{%- endfor -%}{{ ns.last }}",
    "{{ functions[0].function.parameters.properties | items | list }}",
    "{{ functions[0].function.parameters.properties.keys() | join(', ') }}",
    "{{ '' if loop is undefined else 'x' }}",
    "{{ chat | selectattr('role', 'in', ['user', 'tool']) | map(attribute='content') | join(' / ') }}",
    "{% for x in [1, 2, 3] -%}\n  {{ x }}\n{%- endfor %}",
    "{{ 1 }}\n{{ 2 }}\n",
    "{%- if s is not none and s | length > 3 and s[0] == 'H' -%}yes{%- endif -%}",
    "{{ {'a': 1}['a'] }}{{ [1, 2][1] }}{{ (1, 2)[0] }}{{ 'abc'[1] }}",
    "{{ {'type': 'object'}.type }}",
    "{{ 'a' if n > 1 and (s or none) else 'b' }}",
    "{% set x = 'a' if none else 'b' %}{{ x }}",
    "{{ (n | string) + 'x' }}{{ (n ~ '')[0] }}",
    "{{ '%s: %s' | format(s, n) }}",
    "{{ dict(chat[0], content='new') }}",
    "{{ chat[0].keys() | list | tojson }}",
    "{{ nested.deep | tojson | length }}",
    "line {{ n }} {{- ' x' }} {% if t -%}\n   y\n{% endif %}",
    "{% set x = [] %}{% for m in chat %}{% set x = x + [m.role] %}{% endfor %}{{ x }}",
    "{% for m in chat if m.role != 'system' %}{{ loop.index }}{{ m.role }} {% endfor %}",
    "{{ chat[:2] | map(attribute='role') | list }}",
    "{{ s is string and (n is number or none) }}",
    "{{ ['a', 'b', 'c'] | join(' ') | title | replace('A', 'x') }}",
    "{{ d | dictsort | map('join', '=') | join('&') }}",
    "{{ [[1, 2], [3]] | sum(start=[]) }}",
    "{{ [[1, 2], [3]] | map('sum') | list }}",
    "{{ users | map('tojson') | join('\\n') }}",
    "{{ l | map('int') | select('even') | first }}",
    "{{ words | map('lower') | unique | sort | join }}",
]

STRFTIME = """
%a %A %b %B %c %d %e %f %F %g %G %h %H %I %j %k %l %m %M %n %p %P %r %R %s %S %t %T %u %U %V %w %W %x %X %y %Y %C %D %z %Z %%
%-d %-m %-H %-I %-M %-S %-j %-y %_d %_H %^a %^B %#Z
""".split() + ["%d %b %Y", "%Y-%m-%d", "%B %d, %Y", "%A, %d %B %Y %H:%M", "no directive", "", "é %Y 日", "%-d %B %Y", "%"]
