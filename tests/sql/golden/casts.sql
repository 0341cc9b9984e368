a::double
a::varchar
a::boolean
a::decimal(10,2)
a::int
try_cast(a as int)
try_cast(a as decimal(5,2))
d::bigint
try_cast(d as bigint)
d::int
d::varchar
f::varchar
d::boolean
d::decimal(10,2)
try_cast(d as decimal(18,6))
f::decimal(18,3)
e::varchar
w::varchar
e::bigint
w::int
w::bigint
e::double
w::double
e::boolean
e::decimal(5,1)
try_cast(w as decimal(10,2))
w::decimal(18,2)
e::decimal(18,6)
o::int
o::varchar
o::double
o::decimal(3,1)
t::varchar
t::date
t::date::varchar
t::date::timestamp
s::bigint
try_cast(s as bigint)
s::double
try_cast(s as boolean)
j::varchar
'2023-06-06 20:24:45'::timestamp
timestamp '2023-06-06 20:24:45.123'
date '2023-02-28'
'5.5'::bigint
' 12 '::int
'1e2'::decimal(10,2)
'yes'::boolean
0.5::decimal(1,1)::varchar
(e*e)::varchar
(a*e)::decimal(18,2)
2.675::double::decimal(10,2)
a::text || 'x'
(w*w)::double
(w*e*e)::double
cast(s as varchar)
