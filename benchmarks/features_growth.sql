-- Eight features of one entity over windows of up to six hours.
SELECT
  count(*)               OVER card_10m AS events_10m,
  count(*)               OVER card_1h  AS events_1h,
  sum(amount)            OVER card_1h  AS amount_1h,
  min(amount)            OVER card_1h  AS amount_least_1h,
  max(amount)            OVER card_6h  AS amount_most_6h,
  avg(amount)            OVER card_6h  AS amount_mean_6h,
  stddev_samp(amount)    OVER card_6h  AS amount_deviation_6h,
  count(DISTINCT device) OVER card_1h  AS devices_1h
FROM events
WINDOW
  card_10m AS (PARTITION BY card ORDER BY event_time
               RANGE BETWEEN INTERVAL 10 MINUTES PRECEDING AND CURRENT ROW),
  card_1h  AS (PARTITION BY card ORDER BY event_time
               RANGE BETWEEN INTERVAL 1 HOUR PRECEDING AND CURRENT ROW),
  card_6h  AS (PARTITION BY card ORDER BY event_time
               RANGE BETWEEN INTERVAL 6 HOURS PRECEDING AND CURRENT ROW)
