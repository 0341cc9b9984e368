lower(s)
upper(s)
length(s)
substr(s,2,3)
substr(s,0,3)
substr(s,-3,2)
substr(s,-10,7)
substr(s,2,-1)
substr(s,4,-2)
substr(s,2)
substr(s,0)
substr(s,-2)
substr(s,-10)
substr(s,b)
substring(s from 2 for 2)
left(s,2)
left(s,-2)
left(s,b)
right(s,2)
right(s,-2)
right(s,b)
trim(s)
ltrim(s)
rtrim(s)
trim(s,'h o')
ltrim(s,'h')
rtrim(s,'o')
trim(both 'h' from s)
trim(s,'')
replace(s,'l','LL')
replace(s,u,'x')
replace(s,'','x')
starts_with(s,'he')
starts_with(s,u)
contains(s,'l')
contains(s,u)
ends_with(s,'o')
suffix(s,u)
strpos(s,u)
position('l' in s)
concat(s,u)
concat(s,a,d,o,e,t)
s||u
s||a
a||s
s||null
s like '%l%'
s like 'h_llo'
s not like '%l'
s like '____'
s ilike 'HELLO'
s ilike 'straSSE%'
s ilike '%ß%'
s ilike '%σ%'
s like '%\%%' escape '\'
s like '%$_%' escape '$'
s like ''
s like '%'
s ilike 'i%'
regexp_matches(s,'l+')
regexp_matches(s,'^h.*o$')
regexp_matches(s,'\w')
regexp_matches(s,'^\W')
regexp_matches(s,'[^\s]')
regexp_matches(s,'\bO')
regexp_matches(s,'HELLO','i')
regexp_matches(s,'[[:alpha:]]{3}')
regexp_matches(s,'é.b')
regexp_matches(s,'[\w&&]')
s like null
regexp_matches(s,null)
length(u) + 1
lower(s)=lower(u)
j->>'a'
j->>'$.b'
j->>'$.c[1].k'
json_extract_string(j,'$.a')
j->>'a b'
j->>'$."a b"'
j->>'$[0]'
(j->>'a')::int = 1
