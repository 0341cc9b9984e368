-- 24 features over three entities.
SELECT
  count(*)                 OVER card_1h       AS card_events_1h,
  count(*)                 OVER card_1d       AS card_events_1d,
  count(*)                 OVER card_7d       AS card_events_7d,
  sum(amount)              OVER card_1d       AS card_amount_1d,
  sum(amount)              OVER card_7d       AS card_amount_7d,
  avg(amount)              OVER card_30d      AS card_amount_mean_30d,
  stddev_samp(amount)      OVER card_30d      AS card_amount_deviation_30d,
  min(amount)              OVER card_7d       AS card_amount_least_7d,
  max(amount)              OVER card_7d       AS card_amount_most_7d,
  count(DISTINCT terminal) OVER card_7d       AS card_terminals_7d,
  count(DISTINCT device)   OVER card_30d      AS card_devices_30d,
  amount / nullif(avg(amount) OVER card_30d, 0) AS amount_ratio_30d,
  count(*) FILTER (WHERE event_type = 'login_failed') OVER card_1h AS failed_logins_1h,
  count(*)                 OVER terminal_1h   AS terminal_events_1h,
  count(*)                 OVER terminal_1d   AS terminal_events_1d,
  avg(amount)              OVER terminal_7d   AS terminal_amount_mean_7d,
  stddev_samp(amount)      OVER terminal_7d   AS terminal_amount_deviation_7d,
  max(amount)              OVER terminal_1d   AS terminal_amount_most_1d,
  count(DISTINCT card)     OVER terminal_1d   AS terminal_cards_1d,
  avg(is_fraud)            OVER terminal_delayed AS terminal_risk,
  count(*)                 OVER device_1d     AS device_events_1d,
  sum(amount)              OVER device_7d     AS device_amount_7d,
  min(amount)              OVER device_7d     AS device_amount_least_7d,
  count(DISTINCT card)     OVER device_7d     AS device_cards_7d
FROM events
WINDOW
  card_1h     AS (PARTITION BY card ORDER BY event_time
                  RANGE BETWEEN INTERVAL 1 HOUR PRECEDING AND CURRENT ROW),
  card_1d     AS (PARTITION BY card ORDER BY event_time
                  RANGE BETWEEN INTERVAL 1 DAY PRECEDING AND CURRENT ROW),
  card_7d     AS (PARTITION BY card ORDER BY event_time
                  RANGE BETWEEN INTERVAL 7 DAYS PRECEDING AND CURRENT ROW),
  card_30d    AS (PARTITION BY card ORDER BY event_time
                  RANGE BETWEEN INTERVAL 30 DAYS PRECEDING AND CURRENT ROW),
  terminal_1h AS (PARTITION BY terminal ORDER BY event_time
                  RANGE BETWEEN INTERVAL 1 HOUR PRECEDING AND CURRENT ROW),
  terminal_1d AS (PARTITION BY terminal ORDER BY event_time
                  RANGE BETWEEN INTERVAL 1 DAY PRECEDING AND CURRENT ROW),
  terminal_7d AS (PARTITION BY terminal ORDER BY event_time
                  RANGE BETWEEN INTERVAL 7 DAYS PRECEDING AND CURRENT ROW),
  terminal_delayed AS (PARTITION BY terminal ORDER BY event_time
                  RANGE BETWEEN INTERVAL 14 DAYS PRECEDING AND INTERVAL 7 DAYS PRECEDING),
  device_1d   AS (PARTITION BY device ORDER BY event_time
                  RANGE BETWEEN INTERVAL 1 DAY PRECEDING AND CURRENT ROW),
  device_7d   AS (PARTITION BY device ORDER BY event_time
                  RANGE BETWEEN INTERVAL 7 DAYS PRECEDING AND CURRENT ROW)
