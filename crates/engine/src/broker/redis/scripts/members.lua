-- Sends members of a topic to the host that asks.
-- KEYS: 1 the members in order, 2 what is known about them
-- ARGV: 1 the channel, 2 what a payload begins with, 3 the question, 4 only members above, 5 how many of them

local MOST = 4194304

local limit = tonumber(ARGV[5])
local found = redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. ARGV[4], '+inf', 'LIMIT', 0, limit + 1)
local goes_on = #found > limit
if goes_on then
    found[#found] = nil
end
local known = #found > 0 and redis.call('HMGET', KEYS[2], unpack(found)) or {}
local parts, total = {}, 0
for index, fd in ipairs(found) do
    local info = known[index] or 'null'
    total = total + #info + 10
    if index > 1 and total > MOST then
        goes_on = true
        break
    end
    parts[index] = struct.pack('<I8I2', tonumber(fd), #info) .. info
end
local head = ARGV[2] .. '\6' .. ARGV[3] .. (goes_on and '\1' or '\0')
return redis.call('PUBLISH', ARGV[1], head .. table.concat(parts))
