hour(t)
minute(t)
second(t)
millisecond(t)
microsecond(t)
year(t)
month(t)
day(t)
dayofmonth(t)
dayofweek(t)
isodow(t)
weekday(t)
dayofyear(t)
week(t)
weekofyear(t)
quarter(t)
decade(t)
century(t)
isoyear(t)
extract(hour from t)
extract(epoch from t)
extract(dow from t)
extract(doy from t)
date_part('minute',t)
date_part('epoch',t)
epoch(t)
epoch_ms(t)
epoch_us(t)
epoch_ms(b)
date_trunc('microsecond',t)
date_trunc('millisecond',t)
date_trunc('second',t)
date_trunc('minute',t)
date_trunc('hour',t)
date_trunc('day',t)
date_trunc('week',t)
date_trunc('month',t)
date_trunc('quarter',t)
date_trunc('year',t)
t + interval 1 day
t - interval '5 minutes'
t + interval 1 month
t - interval 13 months
t + interval '1 year 2 days'
t + interval (b) hour
t - to_minutes(b)
to_days(b) + t
epoch(t-v)
t - v > interval 1 day
t - v > interval 1 month
interval 1 month > interval 29 days
t::date + 1
t::date - 1
t::date - v::date
t::date + interval 1 day
t::date = v::date
t::date < v
date_trunc('month',t::date)
year(v::date)
interval 1 day + interval 2 hours > interval 25 hours
