-- Notes which Redis process this is. Positions of other runs are not continued: see topic.lua.
-- KEYS: 1 the run. ARGV: 1 the run

if redis.call('GET', KEYS[1]) == ARGV[1] then
    return 0
end
redis.call('SET', KEYS[1], ARGV[1])
return 1
