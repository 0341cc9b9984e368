-- The twelve published windows of card payments, open on the left; see examples/cards.
SELECT
  count(amount) OVER card_1d                   AS card_payments_1d,
  avg(amount)   OVER card_1d                   AS card_amount_mean_1d,
  count(amount) OVER card_7d                   AS card_payments_7d,
  avg(amount)   OVER card_7d                   AS card_amount_mean_7d,
  count(amount) OVER card_30d                  AS card_payments_30d,
  avg(amount)   OVER card_30d                  AS card_amount_mean_30d,
  count(is_fraud) OVER terminal_1d             AS terminal_payments_1d,
  coalesce(avg(is_fraud) OVER terminal_1d, 0)  AS terminal_risk_1d,
  count(is_fraud) OVER terminal_7d             AS terminal_payments_7d,
  coalesce(avg(is_fraud) OVER terminal_7d, 0)  AS terminal_risk_7d,
  count(is_fraud) OVER terminal_30d            AS terminal_payments_30d,
  coalesce(avg(is_fraud) OVER terminal_30d, 0) AS terminal_risk_30d
FROM events
WINDOW
  card_1d      AS (PARTITION BY card ORDER BY event_time
                   RANGE BETWEEN INTERVAL '1 day -1 microsecond' PRECEDING AND CURRENT ROW),
  card_7d      AS (PARTITION BY card ORDER BY event_time
                   RANGE BETWEEN INTERVAL '7 days -1 microsecond' PRECEDING AND CURRENT ROW),
  card_30d     AS (PARTITION BY card ORDER BY event_time
                   RANGE BETWEEN INTERVAL '30 days -1 microsecond' PRECEDING AND CURRENT ROW),
  terminal_1d  AS (PARTITION BY terminal ORDER BY event_time
                   RANGE BETWEEN INTERVAL '8 days -1 microsecond' PRECEDING AND INTERVAL 7 DAYS PRECEDING),
  terminal_7d  AS (PARTITION BY terminal ORDER BY event_time
                   RANGE BETWEEN INTERVAL '14 days -1 microsecond' PRECEDING AND INTERVAL 7 DAYS PRECEDING),
  terminal_30d AS (PARTITION BY terminal ORDER BY event_time
                   RANGE BETWEEN INTERVAL '37 days -1 microsecond' PRECEDING AND INTERVAL 7 DAYS PRECEDING)
