SELECT 
   store_id, 
   COLLECT(id) as ids, 
   System.Timestamp() as WindowEnd, 
   DATEADD(minute, -5, System.Timestamp()) as WindowStart
INTO [fraud-detective-output-008]
FROM [fraud-detective-input-008]
WHERE 
   [discount] > 50
   AND [priority_shipping] = 1
   AND [event_type] = 'sale_event'
GROUP BY store_id, TumblingWindow(minute, 5)
