-- The published windows of each card alone: what libraries without delayed windows can compute too.
SELECT
  count(amount) OVER card_1d  AS card_payments_1d,
  avg(amount)   OVER card_1d  AS card_amount_mean_1d,
  count(amount) OVER card_7d  AS card_payments_7d,
  avg(amount)   OVER card_7d  AS card_amount_mean_7d,
  count(amount) OVER card_30d AS card_payments_30d,
  avg(amount)   OVER card_30d AS card_amount_mean_30d
FROM events
WINDOW
  card_1d  AS (PARTITION BY card ORDER BY event_time
               RANGE BETWEEN INTERVAL '1 day -1 microsecond' PRECEDING AND CURRENT ROW),
  card_7d  AS (PARTITION BY card ORDER BY event_time
               RANGE BETWEEN INTERVAL '7 days -1 microsecond' PRECEDING AND CURRENT ROW),
  card_30d AS (PARTITION BY card ORDER BY event_time
               RANGE BETWEEN INTERVAL '30 days -1 microsecond' PRECEDING AND CURRENT ROW)
