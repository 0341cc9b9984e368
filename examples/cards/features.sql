-- What is known of a payment when it arrives. Each row sees its own event and those before it.
--
-- The features of the handbook "Reproducible Machine Learning for Credit Card Fraud Detection" come
-- first. Its windows are open on the left, (t - w, t]; a RANGE frame holds both of its ends, so its
-- bound is one microsecond, the smallest step of time, shorter.
SELECT
  isodow(event_time) >= 6                    AS during_weekend,
  hour(event_time) <= 6                      AS during_night,

  -- What the card usually does. Failed logins have no amount, so that only payments count.
  count(amount) OVER card_1d                 AS card_payments_1d,
  avg(amount)   OVER card_1d                 AS card_amount_mean_1d,
  count(amount) OVER card_7d                 AS card_payments_7d,
  avg(amount)   OVER card_7d                 AS card_amount_mean_7d,
  count(amount) OVER card_30d                AS card_payments_30d,
  avg(amount)   OVER card_30d                AS card_amount_mean_30d,

  -- How often the terminal was part of a fraud, as known after the seven days that it takes to find
  -- out. Failed logins have no terminal and no label.
  count(is_fraud) OVER terminal_1d           AS terminal_payments_1d,
  coalesce(avg(is_fraud) OVER terminal_1d, 0)  AS terminal_risk_1d,
  count(is_fraud) OVER terminal_7d           AS terminal_payments_7d,
  coalesce(avg(is_fraud) OVER terminal_7d, 0)  AS terminal_risk_7d,
  count(is_fraud) OVER terminal_30d          AS terminal_payments_30d,
  coalesce(avg(is_fraud) OVER terminal_30d, 0) AS terminal_risk_30d,

  -- What the rules need besides: the payment beside the card's earlier ones, and who is paying.
  count(amount) OVER card_before             AS earlier_payments_30d,
  avg(amount)   OVER card_before             AS usual_amount_30d,
  amount / nullif(usual_amount_30d, 0)       AS amount_ratio_30d,
  epoch(event_time - max(event_time) OVER card_before) AS seconds_since_last,
  count(*) FILTER (WHERE event_type = 'login_failed') OVER card_1h AS failed_logins_1h,
  count(DISTINCT device) OVER card_7d        AS card_devices_7d,
  count(DISTINCT card)   OVER device_7d      AS device_cards_7d
FROM events
WINDOW
  card_1h      AS (PARTITION BY card ORDER BY event_time
                   RANGE BETWEEN INTERVAL 1 HOUR PRECEDING AND CURRENT ROW),
  card_1d      AS (PARTITION BY card ORDER BY event_time
                   RANGE BETWEEN INTERVAL '1 day -1 microsecond' PRECEDING AND CURRENT ROW),
  card_7d      AS (PARTITION BY card ORDER BY event_time
                   RANGE BETWEEN INTERVAL '7 days -1 microsecond' PRECEDING AND CURRENT ROW),
  card_30d     AS (PARTITION BY card ORDER BY event_time
                   RANGE BETWEEN INTERVAL '30 days -1 microsecond' PRECEDING AND CURRENT ROW),
  card_before  AS (PARTITION BY card ORDER BY event_time
                   RANGE BETWEEN INTERVAL 30 DAYS PRECEDING AND CURRENT ROW EXCLUDE CURRENT ROW),
  device_7d    AS (PARTITION BY device ORDER BY event_time
                   RANGE BETWEEN INTERVAL 7 DAYS PRECEDING AND CURRENT ROW),
  terminal_1d  AS (PARTITION BY terminal ORDER BY event_time
                   RANGE BETWEEN INTERVAL '8 days -1 microsecond' PRECEDING AND INTERVAL 7 DAYS PRECEDING),
  terminal_7d  AS (PARTITION BY terminal ORDER BY event_time
                   RANGE BETWEEN INTERVAL '14 days -1 microsecond' PRECEDING AND INTERVAL 7 DAYS PRECEDING),
  terminal_30d AS (PARTITION BY terminal ORDER BY event_time
                   RANGE BETWEEN INTERVAL '37 days -1 microsecond' PRECEDING AND INTERVAL 7 DAYS PRECEDING)
