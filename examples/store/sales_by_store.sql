-- What each store sold in five minutes, by the time of the sale.
SELECT
  store_id,
  count(*) AS sales,
  sum(qty) AS pieces,
  sum(price * qty) AS revenue
FROM events
WHERE event_type = 'sale_event'
GROUP BY store_id, TUMBLE(ts, INTERVAL '5 minutes')
