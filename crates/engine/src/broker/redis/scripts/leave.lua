-- Removes a member.
-- KEYS: 1 the topic's members in order, 2 what is known about them, 3 the host's topics
-- ARGV: 1 the member, 2 the host's first possible id, 3 its last one, 4 the topic

redis.call('HDEL', KEYS[2], ARGV[1])
redis.call('ZREM', KEYS[1], ARGV[1])
if redis.call('ZCOUNT', KEYS[1], ARGV[2], ARGV[3]) == 0 then
    redis.call('SREM', KEYS[3], ARGV[4])
end
return 1
