-- Removes the messages of a topic, and begins a new epoch.
-- ARGV: 7 the question

if redis.call('EXISTS', KEYS[1]) == 1 then
    begin(current_run())
    keep_position()
end
return redis.call('PUBLISH', ARGV[5], ARGV[6] .. '\5' .. ARGV[7])
