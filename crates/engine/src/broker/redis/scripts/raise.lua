-- Notes up to where counters may be given out in the name of a number, if it is still this host's.
-- ARGV: 3 the number, 4 the counter

if redis.call('GET', key('lease', ARGV[3])) ~= ARGV[2] then
    return 0
end
raise(key('top', ARGV[3]), tonumber(ARGV[4]))
return 1
