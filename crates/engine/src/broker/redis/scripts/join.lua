-- Adds a member, or changes what is known about it, if the number is still this host's.
-- KEYS: 1 the topic's members in order, 2 what is known about them, 3 the host's topics, 4 its lease
-- ARGV: 1 its token, 2 the member, 3 what is known, 4 the topic

if redis.call('GET', KEYS[4]) ~= ARGV[1] then
    return 0
end
redis.call('HSET', KEYS[2], ARGV[2], ARGV[3])
redis.call('ZADD', KEYS[1], ARGV[2], ARGV[2])
redis.call('SADD', KEYS[3], ARGV[4])
return 1
