a+b
a-b
a*b
a/b
a//b
a%b
a+1
2147483647+a
2147483647+1
1+1
-a
-b
a+d
a*e
a+e
a-e
a/e
a//e
a%e
e+e
e-e
e*e
e*e*e
e/e
e//e
e%e
e+w
e*w
w*w
w+w
w-e
e+1
e*2
e*1.5
a+1.5
a*0.5
a%1.5
d+e
d*f
d/f
d//f
d%f
d-f
f/3
d/3
e/3
a/3
-d
-e
-2**2
2**3**2
d^2
abs(a)
abs(b)
abs(e)
abs(d)
abs(1)
round(a)
round(d)
round(d,2)
round(f,-1)
round(d,5)
round(e)
round(e,1)
round(e,5)
round(e,-1)
round(e,-5)
round(w,3)
round(a,2)
round(a,-2)
round(b,-1)
round(1.005e0,2)
floor(a)
floor(d)
floor(e)
floor(w)
ceil(e)
ceil(d)
ceiling(w)
sign(a)
sign(d)
sign(e)
mod(a,b)
mod(e,2)
mod(d,f)
greatest(a,b)
greatest(a,d)
least(d,f)
greatest(d,f)
greatest(e,w)
least(a,e,d)
greatest(s,u)
greatest(t,v)
least(o,p)
a=b
d=f
d<f
d>=f
e<w
a=e
a<d
o=1
o=2
o>0
o=d
o=e
o<p
s=u
s<u
s>'hello'
t<v
t>'2020-01-01'
a='5'
d='1.5'
e='1.25'
o='true'
a is null
a is not null
a is distinct from b
d is not distinct from f
s is distinct from u
o is true
o is not true
o is false
o is not false
a is true
d is true
not o
not a
o and p
o or p
a and o
o and null
not (o or p)
a>0 or b>0 and o
a in (1,2,-7)
a in (1,null)
a not in (1,null)
a not in (1,2)
s in ('hello','')
s not in ('hello')
d in (1.5,'nan')
d in (0.0)
e in (1.25,1)
a in (b,1)
a in ('1','5')
a in (1,2.5)
t in ('1970-01-01')
a between 0 and 10
a not between b and 10
d between f and 2
s between 'a' and 'i'
case when o then a else b end
case when o then 1 else 2.5 end
case a when 1 then 'x' when 5 then 'y' end
case when a>0 then a//b else 0 end
case when b<>0 then a//b end
coalesce(a,b)
coalesce(a,d)
coalesce(e,w)
coalesce(s,u,'z')
coalesce(null,a)
ifnull(a,1)
nullif(a,1)
nullif(a,b)
nullif(d,1.5)
nullif(e,1.25)
nullif(s,'')
if(o,a,b)
null
null+1
a+null
null=null
null and false
coalesce(null,null)
a//0
case when false then 1//0 else 2 end
coalesce(a,1//0)
0.1+0.2
1.50
100
9999999999
-9223372036854775808
1e3
true
'x'
isnan(d)
isinf(d)
isfinite(d)
(NULL + (a + a))
NULL = (a+a)
nullif(0,0+0)
nullif(NULL,a)
case when o then null end
(a+a) in (1,a)
concat(a+a,'x')
(a+1) is null
greatest(a, a + 9223372036854775807)
1 = case when s is null then 1 else a end
0-d
d*0+0e0
