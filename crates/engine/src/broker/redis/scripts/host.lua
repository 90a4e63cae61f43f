-- What the scripts of host numbers have in common.
-- ARGV: 1 the prefix, 2 the host's token

local HOSTS = 255

local function key(kind, number)
    return ARGV[1] .. ':' .. kind .. ':' .. number
end

local function text(number)
    return string.format('%.0f', number)
end

local function milliseconds()
    local time = redis.call('TIME')
    return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function of_all(kind)
    local keys = {}
    for number = 1, HOSTS do
        keys[number] = key(kind, number)
    end
    return keys
end

-- Notes that the number is in use.
local function note_use(number)
    redis.call('HSET', ARGV[1] .. ':used', number, text(milliseconds()))
end

local function raise(name, value)
    if value > (tonumber(redis.call('GET', name) or 0) or 0) then
        redis.call('SET', name, text(value))
    end
end

-- Removes up to so many members of a host. Returns topic, id and information of each, and whether there are no more.
local function remove_members(number, limit)
    local removed = {}
    local topics = key('i', number)
    local first, last = text(number * 2 ^ 45), text((number + 1) * 2 ^ 45 - 1)
    local steps = 0
    while steps < limit do
        local topic = redis.call('SRANDMEMBER', topics)
        if not topic then
            return removed, true
        end
        local order, known = ARGV[1] .. ':q:{' .. topic .. '}', ARGV[1] .. ':p:{' .. topic .. '}'
        local found = redis.call('ZRANGEBYSCORE', order, first, last, 'LIMIT', 0, limit - steps)
        for _, fd in ipairs(found) do
            removed[#removed + 1] = topic
            removed[#removed + 1] = fd
            removed[#removed + 1] = redis.call('HGET', known, fd) or 'null'
            redis.call('HDEL', known, fd)
            redis.call('ZREM', order, fd)
        end
        steps = steps + 1 + #found
        if redis.call('ZCOUNT', order, first, last) == 0 then
            redis.call('SREM', topics, topic)
        end
    end
    return removed, redis.call('EXISTS', topics) == 0
end
